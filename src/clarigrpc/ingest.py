"""Sources of inputs for ``client.inputs.upload``: folders, CSV, JSON Lines, COCO.

from clarigrpc.ingest import from_folder

report = client.inputs.upload(from_folder("pictures", concepts_from_folders=True))
"""

from clarigrpc._bulk.input_sources import from_coco, from_csv, from_folder, from_json

__all__ = ["from_coco", "from_csv", "from_folder", "from_json"]
