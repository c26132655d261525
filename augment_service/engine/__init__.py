"""Proposes candidates and draws samples: texts in, samples out. Knows neither Ray nor HTTP nor files."""
