"""Read cases from standard input, one a line, and print `accepted` or `refused` for each. See test_docs_verifiers.py."""

import base64
import sys

from verify import is_valid

for line in sys.stdin:
    secrets, now, body, *pairs = (base64.b64decode(field).decode() for field in line.rstrip("\n").split("\t"))
    headers = dict(zip(pairs[::2], pairs[1::2], strict=True))
    verdict = is_valid(secrets.split(" "), headers, body.encode(), int(now))
    sys.stdout.write("accepted\n" if verdict else "refused\n")
