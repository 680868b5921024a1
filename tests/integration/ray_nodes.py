"""A Ray cluster on this machine whose nodes come and go as lines of its input say.

The first argument is the folder of its sessions, the second the head's arguments as JSON. It prints
the head's address. A line `{"add": {…}}` starts a node and prints its id, `{"kill": id}` kills one.
It ends with its input.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ray.cluster_utils import Cluster

if __name__ == "__main__":
    common = {"include_dashboard": False, "temp_dir": sys.argv[1], "object_store_memory": 2**27}
    cluster = Cluster(initialize_head=True, head_node_args={**json.loads(sys.argv[2]), **common})
    nodes: dict[str, Any] = {}
    print(json.dumps(cluster.address), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        if "add" in command:
            node = cluster.add_node(**command["add"], **common)
            nodes[node.node_id] = node
            print(json.dumps(node.node_id), flush=True)
        else:
            cluster.remove_node(nodes.pop(command["kill"]), allow_graceful=False)
            print(json.dumps(command["kill"]), flush=True)
    cluster.shutdown()
