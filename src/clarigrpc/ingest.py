"""Sources of inputs for ``client.inputs.upload``: a folder, a CSV file, a COCO dataset.

from clarigrpc.ingest import from_folder

report = client.inputs.upload(from_folder("pictures", concepts_from_folders=True))
"""

from clarigrpc._bulk.input_sources import from_coco, from_csv, from_folder

__all__ = ["from_coco", "from_csv", "from_folder"]
