"""`trainer report`: what students reached beside their teachers, as one HTML page and one JSON file."""
