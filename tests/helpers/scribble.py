"""Short trainings on weak labels, for the tests of what they make and of what reads that."""

from pseudolabel.data import open_dataset

SMALL = {
    "backbone": "test_vit",
    "pretrained": False,
    "crop": 32,
    "epochs": 2,
    "batch_size": 2,
    "start": 0.26,  # of eight steps the first two
    "ramp": 0.25,
    "precision": "float32",
    "device": "cpu",
    "workers": 0,
}


def mixture(scribble_options, folder):
    """Options for two images with scribbles, one with points, one with boxes, one mask, and three with tags only."""
    records = open_dataset(scribble_options()).records
    about = scribble_options()
    places = {kind: folder / "mixed" / kind for kind in ("scribbles", "points", "boxes")}
    source = about.scribbles.parent
    for place in places.values():
        place.mkdir(parents=True)
    for record in records[:2]:
        name = f"{record.id}.png"
        (places["scribbles"] / name).write_bytes((source / "scribbles" / name).read_bytes())
    rows = (source / "points" / "points.csv").read_text().splitlines()
    kept = [row for row in rows if row.startswith(("id,", f"{records[2].id},"))]
    (places["points"] / "points.csv").write_text("\n".join(kept))
    name = f"{records[3].id}.xml"
    (places["boxes"] / name).write_bytes((source / "boxes" / name).read_bytes())
    (folder / "masks.txt").write_text(records[4].id)
    return {**places, "mask_list": folder / "masks.txt", "exclusion": 0.1, "presence": 0.1}
