package schema_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/repromill/repromill/results/schema"
	"github.com/repromill/repromill/results/schema/schematest"
)

func foreign(t testing.TB, rows int) []byte {
	t.Helper()
	var ids []int64
	var questions []*string
	var options [][]string
	for i := range rows {
		ids = append(ids, 1<<60+int64(i))
		q := strings.Repeat("é", i%7)
		if i%3 == 2 {
			questions = append(questions, nil)
		} else {
			questions = append(questions, &q)
		}
		options = append(options, strings.Split("abcdef", "")[:i%4])
	}
	var out bytes.Buffer
	if err := schematest.Write(&out, schematest.Column{Name: "question_id", Values: ids}, schematest.Column{Name: "question", Values: questions}, schematest.Column{Name: "options", Values: options}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func lines(t *testing.T, file []byte, columns ...string) (out []string) {
	t.Helper()
	err := schema.EachForeign(bytes.NewReader(file), columns, func(row map[string]any) error {
		b, err := json.Marshal(row)
		out = append(out, string(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestForeignFile(t *testing.T) {
	in := foreign(t, 2500)
	rows := lines(t, in)
	if len(rows) != 2500 {
		t.Fatalf("%d rows", len(rows))
	}
	for i, want := range map[int]string{
		5:    `{"options":["a"],"question":null,"question_id":1152921504606846981}`,
		4:    `{"options":[],"question":"éééé","question_id":1152921504606846980}`,
		2499: `{"options":["a","b","c"],"question":"","question_id":1152921504606849475}`,
	} {
		if rows[i] != want {
			t.Errorf("row %d\n got %s\nwant %s", i, rows[i], want)
		}
	}
	if some := lines(t, in, "options"); len(some) != 2500 || some[2] != `{"options":["a","b"]}` {
		t.Errorf("one column: %d rows, %s", len(some), some[2])
	}
	var missing *schema.MissingColumnError
	if err := schema.EachForeign(bytes.NewReader(in), []string{"answer"}, nil); !errors.As(err, &missing) || missing.Column != "answer" || len(missing.Have) != 3 {
		t.Errorf("a missing column: %v", err)
	}
	stop := errors.New("stop")
	if err := schema.EachForeign(bytes.NewReader(in), nil, func(map[string]any) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("went on after an error: %v", err)
	}
}

// TestForeignNested reads a file that pyarrow wrote: lists of structs, NULLs on
// every level, dictionaries, two row groups, zstd.
func TestForeignNested(t *testing.T) {
	file, err := os.ReadFile("testdata/nested.parquet")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/nested.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(lines(t, file), "\n") + "\n"
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestForeignFileSurvivesDamage(t *testing.T) {
	whole := foreign(t, 200)
	rng := rand.New(rand.NewPCG(7, 8))
	refused := 0
	for i := range 300 {
		bad := bytes.Clone(whole)
		if i%2 == 0 {
			bad[rng.IntN(len(bad))] ^= 1 << rng.IntN(8)
		} else {
			bad = bad[:rng.IntN(len(bad))]
		}
		if schema.EachForeign(bytes.NewReader(bad), nil, func(map[string]any) error { return nil }) != nil {
			refused++
		}
	}
	if refused < 150 {
		t.Errorf("only %d of 300 damaged files were refused", refused)
	}
}

func FuzzForeign(f *testing.F) {
	f.Add(foreign(f, 5))
	f.Fuzz(func(t *testing.T, in []byte) {
		n := 0
		_ = schema.EachForeign(bytes.NewReader(in), nil, func(map[string]any) error {
			if n++; n > 1000 {
				return errors.New("enough")
			}
			return nil
		})
	})
}
