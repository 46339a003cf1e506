"""From a graph to something that runs: measured on this CPU, compiled by TensorRT where it can be had."""
