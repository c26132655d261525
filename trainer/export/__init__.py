"""`trainer export`: a classifier as one ONNX file."""
