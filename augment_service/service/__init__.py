"""The HTTP service: samples and candidates for a few texts at a time, using the engine of the batch job."""
