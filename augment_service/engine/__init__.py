"""Proposes candidates and draws samples: texts in, samples out. Knows nothing of Ray, HTTP or files."""
