"""A Ray cluster of two nodes on this machine that a test attaches to. It ends with its input.

Each line of that adds a node that has what the line names."""

from __future__ import annotations

import json
import sys

from ray.cluster_utils import Cluster

if __name__ == "__main__":
    temp_dir = sys.argv[1]
    common = {"include_dashboard": False, "temp_dir": temp_dir, "object_store_memory": 2**27}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "resources": {"high_memory": 2}, **common},
    )
    other = cluster.add_node(num_cpus=1, num_gpus=1, resources={"license": 1}, **common)
    print(json.dumps({"address": cluster.address, "other": other.node_id}), flush=True)
    for line in sys.stdin:
        added = cluster.add_node(num_cpus=1, resources={line.strip(): 1}, **common)
        print(json.dumps(added.node_id), flush=True)
    cluster.shutdown()
