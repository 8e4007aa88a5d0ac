# mypy: ignore-errors
"""Calls the methods of a model that a runner serves, through the published SDK.

Arguments: address of the model, id of its deployment. Printed is JSON: what came of each method.
"""

import json
import os
import sys

from clarifai.client.model import Model

out = os.dup(1)
sys.stdout = sys.stderr  # the SDK prints
model = Model(
    sys.argv[1],
    base_url=os.environ["CLARIFAI_API_BASE"],
    pat=os.environ["CLARIFAI_PAT"],
    deployment_id=sys.argv[2],
)
results = {
    "predict": model.predict(prompt="a cat"),
    "generate": list(model.generate(prompt="a cat")),
    "shout": list(model.shout(iter(["a", "b"]))),
}
os.write(out, json.dumps(results).encode())
os._exit(0)
