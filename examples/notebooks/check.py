"""Executes every notebook beside this file on a folder of results, and reads the
files back with pyarrow to hold their types to what each table's _schema.json says.

    python check.py data [OUTPUT]    executed notebooks and figures go to OUTPUT
"""

import json
import os
import pathlib
import sys
import tempfile
import time

import nbformat
import pyarrow as pa
import pyarrow.parquet as pq
from nbclient import NotebookClient

HERE = pathlib.Path(__file__).parent
ARROW = {
    "int64": pa.int64(),
    "string": pa.string(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "timestamp[us, UTC]": pa.timestamp("us", tz="UTC"),
    "list<double>": pa.list_(pa.float64()),
}


def types(data):
    """Every file has exactly the columns that its schema document promises."""
    files = 0
    for doc in sorted(pathlib.Path(data).glob("*/v1/_schema.json")):
        promised = json.loads(doc.read_text())
        for file in sorted(doc.parent.rglob("*.parquet")):
            files += 1
            have = pq.read_schema(file)
            assert have.metadata[b"schema_version"] == b"v1", file
            assert have.names == [c["name"] for c in promised["columns"]], file
            for c in promised["columns"]:
                field = have.field(c["name"])
                want = ARROW[c["type"]]
                same = field.type.value_type == want.value_type if pa.types.is_list(want) else field.type == want
                assert same, f"{file}: {c['name']} is {field.type}, promised {c['type']}"
                assert field.nullable == c.get("nullable", False), f"{file}: {c['name']}"
                assert field.metadata[b"doc"].decode() == c["doc"], f"{file}: {c['name']}"
            pq.read_table(file, partitioning=None).validate(full=True)
    assert files, f"no results in {data}"
    print(f"types of {files} files are as promised")


def execute(path, data, out):
    start = time.monotonic()
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    os.environ["REPROMILL_RESULTS"], os.environ["REPROMILL_FIGURES"] = str(data), str(out)
    NotebookClient(book, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}).execute()
    nbformat.write(book, out / path.name)
    print(f"{path.name}: {time.monotonic() - start:.1f} s")


def main():
    data = pathlib.Path(sys.argv[1]).resolve()
    types(data)
    with tempfile.TemporaryDirectory() as temp:
        out = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else temp).resolve()
        out.mkdir(parents=True, exist_ok=True)
        for path in sorted(HERE.glob("*.ipynb")):
            execute(path, data, out)


main()
