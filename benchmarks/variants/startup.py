"""``startup.py VARIANT ADDRESS PAT``: what it takes from nothing to the first answer.

Prints JSON: wall and cpu seconds from the first import on, and MB of resident memory after the
imports. The interpreter's own start is in neither time; it is in the memory of all.
"""

import sys
import time

start, start_cpu = time.perf_counter(), time.process_time()
variant, address, pat = sys.argv[1:]
if variant == "clarigrpc":
    from clarigrpc import Client, text
    from clarigrpc.v2 import PostModelOutputsRequest as PostModelOutputsRequest
elif variant == "clarifai-grpc":
    from clarifai_grpc.channel.clarifai_channel import ClarifaiChannel
    from clarifai_grpc.grpc.api import resources_pb2, service_pb2, service_pb2_grpc
else:
    from clarifai.client.model import Model as Model

with open("/proc/self/statm") as statm:
    pages = int(statm.read().split()[1])

if variant == "clarigrpc":
    client = Client(base=f"http://{address}", pat=pat, user_id="user", app_id="app")
    client.model("model").predict(text("a short text"))
elif variant == "clarifai-grpc":
    host, _, port = address.rpartition(":")
    stub = service_pb2_grpc.V2Stub(ClarifaiChannel.get_insecure_grpc_channel(host, int(port)))
    stub.PostModelOutputs(
        service_pb2.PostModelOutputsRequest(
            user_app_id=resources_pb2.UserAppIDSet(user_id="user", app_id="app"),
            model_id="model",
            inputs=[
                resources_pb2.Input(
                    data=resources_pb2.Data(text=resources_pb2.Text(raw="a short text"))
                )
            ],
        ),
        metadata=(("authorization", f"Key {pat}"),),
    )
wall, cpu = time.perf_counter() - start, time.process_time() - start_cpu

import json  # noqa: E402 - not part of what is measured
import resource  # noqa: E402

memory = pages * resource.getpagesize() / 1e6
print(json.dumps({"wall": wall, "cpu": cpu, "peak_mb": memory}))
