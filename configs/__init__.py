"""Named pipelines, each runnable as it is: ``pseudolabel run NAME``, where NAME is a file here without ``.yaml``."""
