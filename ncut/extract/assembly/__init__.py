"""From that record to a NeuronGraph: planned layers and edges, weights, roles, left-out parts."""
