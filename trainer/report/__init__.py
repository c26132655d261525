"""`trainer report`: the scores, sizes and speed of students and their teachers, as an HTML page and a JSON file."""
