"""The HTTP service: samples and candidates of a few texts at once, by the engine of the batch job."""
