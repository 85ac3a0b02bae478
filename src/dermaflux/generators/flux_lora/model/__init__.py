"""The pipeline, its adapter, the flow objective's mathematics and costs."""
