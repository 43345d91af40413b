package export

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/schema"
)

// CSV writes the rows that runs have in a table, one run after the other, as
// RFC 4180 has it, with a header of column names: those of the table, then its
// partitions. It returns the number of rows.
//
// A NULL is an empty field and an empty text is "", which DuckDB and PostgreSQL
// tell apart. Times are ISO 8601 in UTC with microseconds, truth values true and
// false, numbers in the shortest form that reads back as the same double, lists
// JSON.
func CSV(ctx context.Context, w io.Writer, d *dataset.Dataset, runs []string, table string) (rows int64, err error) {
	columns, err := schema.Columns(table)
	if err != nil {
		return 0, err
	}
	partitions := schema.Partitions(table)
	b := bufio.NewWriterSize(w, 1<<16)
	var line []byte
	for _, c := range columns {
		line = append(line, c.Name...)
		line = append(line, ',')
	}
	line = append(line, strings.Join(partitions, ",")...)
	if _, err := b.Write(append(line, "\r\n"...)); err != nil {
		return 0, err
	}
	for _, id := range runs {
		m, err := d.Manifest(id)
		if err != nil {
			return rows, err
		}
		if !slices.ContainsFunc(m.Files, func(f dataset.File) bool { return f.Table == table }) {
			continue
		}
		date := m.Created.UTC().Format(time.DateOnly)
		err = dataset.EachValues(ctx, d, id, table, func(suite string, values []any) error {
			line = line[:0]
			for _, v := range values {
				line = append(appendCSV(line, v), ',')
			}
			line = append(line, date...)
			if len(partitions) > 1 {
				line = appendCSV(append(line, ','), suite)
			}
			rows++
			_, err := b.Write(append(line, "\r\n"...))
			return err
		})
		if err != nil {
			return rows, err
		}
	}
	return rows, b.Flush()
}

// csvTime is ISO 8601 as every reader of CSV takes it for a time with its zone.
const csvTime = "2006-01-02T15:04:05.000000Z"

func appendCSV(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return b
	case string:
		if v != "" && !strings.ContainsAny(v, ",\"\r\n") && v == strings.TrimSpace(v) {
			return append(b, v...)
		}
		return append(append(append(b, '"'), strings.ReplaceAll(v, `"`, `""`)...), '"')
	case int64:
		return strconv.AppendInt(b, v, 10)
	case float64:
		return strconv.AppendFloat(b, v, 'g', -1, 64)
	case bool:
		return strconv.AppendBool(b, v)
	case time.Time:
		return v.AppendFormat(b, csvTime)
	case []float64:
		text, err := json.Marshal(finite(v))
		if err != nil {
			return b
		}
		return appendCSV(b, string(text))
	}
	return fmt.Append(b, v)
}

// finite is a list as JSON can have it: a NaN, which stands for a NULL, is null.
func finite(list []float64) []*float64 {
	out := make([]*float64, len(list))
	for i := range list {
		if list[i] == list[i] {
			out[i] = &list[i]
		}
	}
	return out
}
