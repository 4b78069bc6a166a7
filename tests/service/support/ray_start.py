"""`ray start`, but listening on the loopback address only, which Ray itself goes out of its way
not to do. Run by ray_cluster.py."""

import sys

from ray._private import ray_constants, services

ray_constants.ENABLE_RAY_CLUSTER = True
services.get_node_ip_address = lambda address=None: "127.0.0.1"
services.resolve_ip_for_localhost = lambda host: host

if __name__ == "__main__":
    from ray.scripts.scripts import main

    from service.work.processes.lifeline import on_parent_end, stop_self

    on_parent_end(sys.stdin, stop_self)  # however the tests end
    sys.exit(main())
