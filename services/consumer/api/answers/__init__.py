"""What the operations API answers, as models that describe it. The routes make the JSON; the tests hold every answer of theirs to
these (`tests/openapi.py`), so that the document tells what is really sent."""
