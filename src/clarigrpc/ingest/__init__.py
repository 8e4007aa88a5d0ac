"""Uploads of any number of inputs: exactly once, item by item, restartable.

``client.inputs.upload`` is the way in. Here are what it returns and the sources it can read::

    from clarigrpc.ingest import from_coco, from_csv, from_folder

    report = client.inputs.upload(from_folder("pictures", concepts_from_folders=True))
"""

from clarigrpc.ingest.report import FailedInput, UploadReport
from clarigrpc.ingest.sources import Source, from_coco, from_csv, from_folder

__all__ = [
    "FailedInput",
    "Source",
    "UploadReport",
    "from_coco",
    "from_csv",
    "from_folder",
]
