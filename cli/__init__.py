"""The command line: flags generated from ``pseudolabel.options``, results as tables or JSON, errors in one line."""
