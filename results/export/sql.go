package export

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/schema"
)

// Views is SQL that gives DuckDB a view for each table of a dataset, with its
// partitions as columns. A table without files is an empty view with the right
// columns, so that a query over it has no rows instead of an error.
func Views(d *dataset.Dataset) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "-- Results in %s, schema %s. Columns are described in <table>/%s/_schema.json.\n", strings.ReplaceAll(d.Root(), "\n", " "), schema.Version, schema.Version)
	for _, table := range schema.Tables() {
		columns, err := schema.Columns(table)
		if err != nil {
			return "", err
		}
		var hive, empty []string
		for _, c := range columns {
			empty = append(empty, fmt.Sprintf("NULL::%s AS %s", duckType(c.Type), c.Name))
		}
		for _, p := range schema.Partitions(table) {
			kind := "VARCHAR"
			if p == "date" {
				kind = "DATE"
			}
			hive = append(hive, fmt.Sprintf("'%s': %s", p, kind))
			empty = append(empty, fmt.Sprintf("NULL::%s AS %s", kind, p))
		}
		if hasFiles(d, table) {
			fmt.Fprintf(&b, "CREATE OR REPLACE VIEW %s AS SELECT * FROM read_parquet('%s', union_by_name = true, hive_partitioning = true, hive_types = {%s});\n",
				table, strings.ReplaceAll(d.Glob(table), "'", "''"), strings.Join(hive, ", "))
		} else {
			fmt.Fprintf(&b, "CREATE OR REPLACE VIEW %s AS SELECT %s WHERE false;\n", table, strings.Join(empty, ", "))
		}
	}
	return b.String(), nil
}

func hasFiles(d *dataset.Dataset, table string) bool {
	found := false
	_ = filepath.WalkDir(filepath.Join(d.Root(), table, schema.Version), func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && strings.HasSuffix(path, ".parquet") {
			found = true
			return fs.SkipAll
		}
		return nil
	})
	return found
}

// duckType is a column's type as DuckDB reads it from Parquet.
func duckType(t schema.Type) string {
	switch t {
	case schema.Int64:
		return "BIGINT"
	case schema.Double:
		return "DOUBLE"
	case schema.Boolean:
		return "BOOLEAN"
	case schema.Timestamp:
		return "TIMESTAMPTZ"
	case schema.DoubleList:
		return "DOUBLE[]"
	}
	return "VARCHAR"
}
