package data

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/repromill/repromill/results/schema"
)

// Read returns the rows of a file as values of T, decoded as encoding/json does
// from an object with a field for each column. Every column named must be there.
// CSV has strings only. What was read comes back with its hash.
func Read[T any](ctx context.Context, h *Hub, f File, columns ...string) ([]T, Local, error) {
	local, err := h.Open(ctx, f)
	if err != nil {
		return nil, local, err
	}
	var out []T
	err = Rows(local.Name, f.Path, columns, func(row json.RawMessage) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		var v T
		if err := json.Unmarshal(row, &v); err != nil {
			return &Error{fmt.Sprintf("%s, row %d: %v", f, len(out)+1, err), "the data set has another shape than its suite expects: pin the commit that the suite names"}
		}
		out = append(out, v)
		return nil
	})
	if err != nil {
		var missing *schema.MissingColumnError
		if errors.As(err, &missing) {
			err = &Error{fmt.Sprintf("%s: %v", f, missing), "the data set has another shape than its suite expects: pin the commit that the suite names"}
		}
		return nil, local, err
	}
	return out, local, nil
}

// MaxRow is the most bytes of one row.
const MaxRow = 256 << 20

// Rows calls fn with every row of a local file as a JSON object. The format is
// told by path's extension: .parquet, .jsonl, .json (an array, an object with
// one array in it, or lines) or .csv, each but Parquet also with .gz. columns, if any, must
// all be in every row; of a Parquet file only those are read.
func Rows(name, path string, columns []string, fn func(json.RawMessage) error) error {
	r, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("read data set: %w", err)
	}
	defer r.Close()
	plain := strings.TrimSuffix(path, ".gz")
	var in io.Reader = bufio.NewReaderSize(r, 1<<20)
	if plain != path {
		zr, err := gzip.NewReader(in)
		if err != nil {
			return damaged(path, err)
		}
		in = zr
	}
	checked := func(row json.RawMessage) error {
		if err := complete(row, columns); err != nil {
			return err
		}
		return fn(row)
	}
	switch ext := plain[strings.LastIndexByte(plain, '.')+1:]; ext {
	case "parquet":
		return schema.EachForeign(r, columns, func(row map[string]any) error {
			b, err := json.Marshal(row)
			if err != nil {
				return damaged(path, err)
			}
			return fn(b)
		})
	case "jsonl", "ndjson":
		return jsonLines(in, path, checked)
	case "json":
		return jsonArray(in, path, checked)
	case "csv":
		return csvRows(in, path, columns, fn)
	default:
		return &Error{fmt.Sprintf("%s is of no known format", path), "Parquet, JSONL, JSON and CSV can be read"}
	}
}

func damaged(path string, err error) error {
	return &Error{fmt.Sprintf("%s is damaged: %v", path, err), "remove it from the cache, so that it is fetched again"}
}

func complete(row json.RawMessage, columns []string) error {
	if len(columns) == 0 {
		return nil
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(row, &m); err != nil {
		return &Error{fmt.Sprintf("a row is no object: %v", err), "pin the commit that the suite names"}
	}
	for _, c := range columns {
		if _, ok := m[c]; !ok {
			var have []string
			for k := range m {
				have = append(have, k)
			}
			return &schema.MissingColumnError{Column: c, Have: have}
		}
	}
	return nil
}

func jsonLines(in io.Reader, path string, fn func(json.RawMessage) error) error {
	sc := bufio.NewScanner(in)
	sc.Buffer(make([]byte, 1<<20), MaxRow)
	for sc.Scan() {
		line := bytes.TrimSpace(bytes.TrimPrefix(sc.Bytes(), []byte("\xef\xbb\xbf")))
		if len(line) == 0 {
			continue
		}
		if !json.Valid(line) {
			return damaged(path, errors.New("a line is not JSON"))
		}
		if err := fn(bytes.Clone(line)); err != nil {
			return err
		}
	}
	if err := sc.Err(); err != nil {
		return damaged(path, err)
	}
	return nil
}

func jsonArray(in io.Reader, path string, fn func(json.RawMessage) error) error {
	b, err := io.ReadAll(io.LimitReader(in, MaxFile))
	if err != nil {
		return damaged(path, err)
	}
	var rows []json.RawMessage
	if err := json.Unmarshal(b, &rows); err != nil {
		var whole map[string]json.RawMessage
		if json.Unmarshal(b, &whole) != nil {
			if first, _, ok := bytes.Cut(b, []byte("\n")); ok && json.Valid(first) {
				return jsonLines(bytes.NewReader(b), path, fn) // lines under the name of an array
			}
			return damaged(path, err)
		}
		for _, v := range whole {
			var list []json.RawMessage
			if json.Unmarshal(v, &list) != nil {
				continue
			}
			if rows != nil {
				return damaged(path, errors.New("there is more than one array in it"))
			}
			rows = list
		}
	}
	for _, row := range rows {
		if err := fn(row); err != nil {
			return err
		}
	}
	return nil
}

func csvRows(in io.Reader, path string, columns []string, fn func(json.RawMessage) error) error {
	cr := csv.NewReader(in)
	cr.LazyQuotes = true
	head, err := cr.Read()
	if err != nil {
		return damaged(path, err)
	}
	head[0] = strings.TrimPrefix(head[0], "\xef\xbb\xbf")
	at := map[string]bool{}
	for _, h := range head {
		at[h] = true
	}
	for _, c := range columns {
		if !at[c] {
			return &schema.MissingColumnError{Column: c, Have: head}
		}
	}
	for {
		rec, err := cr.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return damaged(path, err)
		}
		row := make(map[string]string, len(head))
		for i, h := range head {
			row[h] = rec[i]
		}
		b, err := json.Marshal(row)
		if err != nil {
			return damaged(path, err)
		}
		if err := fn(b); err != nil {
			return err
		}
	}
}
