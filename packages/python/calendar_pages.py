"""Writes a page for each year that the build asks for, and an index of their hashes."""

import calendar
import hashlib
import json
import sys

job = json.load(sys.stdin)
out = job["outputs"]["out"]

index = {}
for year in job["years"]:
    page = calendar.TextCalendar().formatyear(year)
    index[year] = hashlib.sha256(page.encode()).hexdigest()
    with open(f"{out}/{year}.txt", "w") as file:
        file.write(page)

with open(f"{out}/index.json", "w") as file:
    json.dump(index, file, indent=2, sort_keys=True)
print(f"{len(index)} years")
