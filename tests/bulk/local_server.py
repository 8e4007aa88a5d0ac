"""Runs a local server until it is killed: ``local_server.py PORT DATA``."""

import sys
import threading

from clarigrpc.local import LocalServer

if __name__ == "__main__":
    with LocalServer(data_dir=sys.argv[2], port=int(sys.argv[1])) as server:
        print(f"PAT={server.pat} {server.base}", flush=True)
        threading.Event().wait()
