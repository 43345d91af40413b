// Package samples reads stored answers: this program's Parquet files and JSONL
// export, the result files of MMLU-Pro, and those of common evaluation
// harnesses, plain or compressed with gzip.
package samples

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/repromill/repromill/results/schema"
	"github.com/repromill/repromill/suites"
)

// Sample is one stored answer. Fields that the file lacks are zero.
type Sample struct {
	Row       int // from 1
	Item      suites.Item
	Arm       string // or the model, where the file names no arm
	Repeat    int
	Text      string
	HasText   bool // the file has the text, if only as null
	Finish    string
	Refusal   bool
	Outcome   suites.Outcome
	Score     *float64
	Rule      string // name@version
	Position  *int64 // place in the pre-declared order
	PromptSHA string
}

// InputError says where a file cannot be read and what would do; it is the
// user's to correct.
type InputError struct {
	Row     int
	Problem string
	Fix     string
}

func (e *InputError) Error() string {
	if e.Row == 0 {
		return e.Problem
	}
	return fmt.Sprintf("row %d: %s", e.Row, e.Problem)
}

// UserError returns the fix.
func (e *InputError) UserError() string { return e.Fix }

// MaxRow is the most bytes one row of JSON may have.
const MaxRow = 64 << 20

// Read calls f for every row of r, which holds JSON lines, one JSON array, or
// (if r is an [schema.Source]) Parquet; JSON may be compressed with gzip. An
// error of f ends it and is returned. Errors of the input are [*InputError].
func Read(r io.Reader, f func(Sample) error) error {
	br := bufio.NewReaderSize(r, 1<<20)
	head, _ := br.Peek(4)
	switch {
	case bytes.Equal(head, []byte("PAR1")):
		src, ok := r.(schema.Source)
		if !ok {
			return &InputError{Problem: "Parquet cannot be read from a pipe", Fix: "give the file's name"}
		}
		return readParquet(src, f)
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		zr, err := gzip.NewReader(br)
		if err != nil {
			return &InputError{Problem: fmt.Sprintf("damaged gzip: %v", err), Fix: "fetch the file again"}
		}
		br = bufio.NewReaderSize(zr, 1<<20)
	}
	for {
		c, err := br.ReadByte()
		if errors.Is(err, io.EOF) {
			return &InputError{Problem: "the file is empty", Fix: "give a file with one JSON object a line"}
		}
		if err != nil {
			return &InputError{Problem: fmt.Sprintf("read: %v", err), Fix: "check that the file is whole"}
		}
		switch c {
		case ' ', '\t', '\r', '\n', 0xef, 0xbb, 0xbf: // blanks and a byte order mark
			continue
		}
		if err := br.UnreadByte(); err != nil {
			return fmt.Errorf("read samples: %w", err)
		}
		if c == '[' {
			return readArray(br, f)
		}
		return readLines(br, f)
	}
}

func readLines(r io.Reader, f func(Sample) error) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 1<<20), MaxRow)
	row := 0
	for sc.Scan() {
		line := bytes.TrimSpace(sc.Bytes())
		if len(line) == 0 {
			continue
		}
		row++
		s, err := parse(line, row)
		if err != nil {
			return err
		}
		if err := f(s); err != nil {
			return err
		}
	}
	if err := sc.Err(); err != nil {
		return &InputError{row + 1, err.Error(), fmt.Sprintf("a row has at most %d MiB; check that the file is whole", MaxRow>>20)}
	}
	return nil
}

func readArray(r io.Reader, f func(Sample) error) error {
	dec := json.NewDecoder(r)
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("read samples: %w", err)
	}
	row := 0
	for dec.More() {
		row++
		var raw json.RawMessage
		if err := dec.Decode(&raw); err != nil {
			return notJSON(row, err)
		}
		s, err := parse(raw, row)
		if err != nil {
			return err
		}
		if err := f(s); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return notJSON(row+1, err)
	}
	return nil
}

func notJSON(row int, err error) error {
	return &InputError{row, fmt.Sprintf("not JSON: %v", err), "give one JSON object a line, or one array of them"}
}

// text is a JSON string, number or null.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	switch {
	case string(b) == "null":
		return nil
	case b[0] == '"':
		return json.Unmarshal(b, (*string)(t))
	case b[0] == '{' || b[0] == '[':
		return fmt.Errorf("want a string or a number")
	}
	*t = text(b)
	return nil
}

// nullText tells null from absence.
type nullText struct {
	set bool
	s   text
}

func (n *nullText) UnmarshalJSON(b []byte) error {
	n.set = true
	return n.s.UnmarshalJSON(b)
}

// question is the part of a row that describes the item. lm-eval keeps it in a
// field of its own.
type question struct {
	ItemID     text            `json:"item_id"`
	QuestionID text            `json:"question_id"`
	ID         text            `json:"id"`
	Reference  text            `json:"reference"`
	Gold       text            `json:"gold"`
	Expected   text            `json:"expected_answer"`
	Answer     json.RawMessage `json:"answer"`
	NOptions   int             `json:"n_options"`
	Options    json.RawMessage `json:"options"`
	Category   text            `json:"category"`
	Cluster    text            `json:"cluster"`
	// Of instructions that a program can verify; together they are the reference.
	Instructions []string          `json:"instruction_id_list"`
	Kwargs       []json.RawMessage `json:"kwargs"`
	Key          text              `json:"key"`
}

// checks returns the instructions as the reference that suites make of them, "" if
// there are none.
func (q question) checks() text {
	if len(q.Instructions) == 0 {
		return ""
	}
	b, err := json.Marshal(map[string]any{"instruction_id_list": q.Instructions, "kwargs": q.Kwargs})
	if err != nil { // raw JSON that was parsed before
		panic(fmt.Sprintf("marshal instructions: %v", err))
	}
	return text(b)
}

// row is the union of the fields of the formats read.
type row struct {
	question
	DocID   text        `json:"doc_id"`
	Problem text        `json:"problem_idx"`
	Doc     *question   `json:"doc"`
	Target  text        `json:"target"`
	Output  nullText    `json:"output"`
	Resp    nullText    `json:"response"`
	Outputs nullText    `json:"model_outputs"`
	Gen     nullText    `json:"generation"`
	Resps   [][]*string `json:"resps"`

	Arm         text           `json:"arm"`
	Model       text           `json:"model"`
	Repeat      int            `json:"repeat"`
	Finish      text           `json:"finish_reason"`
	Refusal     bool           `json:"refusal"`
	Outcome     suites.Outcome `json:"outcome"`
	Score       *float64       `json:"score"`
	ExactMatch  *float64       `json:"exact_match"`
	Rule        string         `json:"rule"`
	RuleVersion string         `json:"rule_version"`
	Position    *int64         `json:"position"`
	PromptSHA   string         `json:"prompt_sha"`
}

func parse(line []byte, n int) (Sample, error) {
	var r row
	if err := json.Unmarshal(line, &r); err != nil {
		return Sample{}, notJSON(n, err)
	}
	doc := question{}
	if r.Doc != nil {
		doc = *r.Doc
	}
	s := Sample{Row: n, Arm: first(r.Arm, r.Model), Repeat: r.Repeat, Finish: string(r.Finish), Refusal: r.Refusal,
		Outcome: r.Outcome, Score: r.Score, Rule: r.Rule, Position: r.Position, PromptSHA: r.PromptSHA}
	if s.Score == nil {
		s.Score = r.ExactMatch
	}
	if r.RuleVersion != "" && !strings.Contains(r.Rule, "@") {
		s.Rule += "@" + r.RuleVersion
	}
	s.Item = suites.Item{
		ID:        first(r.ItemID, r.QuestionID, doc.ItemID, doc.QuestionID, r.ID, doc.ID, r.Key, doc.Key, r.DocID, r.Problem),
		Reference: first(r.Reference, r.Gold, r.Expected, scalar(r.Answer), r.checks(), doc.checks(), r.Target, doc.Reference, scalar(doc.Answer)),
		Category:  first(r.Category, doc.Category),
		Cluster:   first(r.Cluster, doc.Cluster),
		NOptions:  max(r.NOptions, count(r.Options), doc.NOptions, count(doc.Options)),
	}
	for _, t := range []nullText{r.Output, r.Resp, r.Outputs, r.Gen} {
		if t.set && !s.HasText {
			s.Text, s.HasText = string(t.s), true
		}
	}
	if !s.HasText && len(r.Resps) > 0 && len(r.Resps[0]) > 0 {
		s.HasText = true
		if p := r.Resps[0][0]; p != nil {
			s.Text = *p
		}
	}
	if s.Item.ID == "" {
		return Sample{}, &InputError{n, "no id of the question", "give item_id or question_id in every row"}
	}
	return s, nil
}

// first returns the first string that is not empty.
func first(ts ...text) string {
	for _, t := range ts {
		if t != "" {
			return string(t)
		}
	}
	return ""
}

// scalar returns a string or number, and nothing for what is no single answer.
func scalar(b json.RawMessage) text {
	var t text
	if len(b) == 0 || json.Unmarshal(b, &t) != nil {
		return ""
	}
	return t
}

// count returns how many options a row lists, without the "N/A" that fills up
// MMLU-Pro's lists.
func count(b json.RawMessage) int {
	var list []text
	if len(b) == 0 || json.Unmarshal(b, &list) != nil {
		return 0
	}
	n := 0
	for _, o := range list {
		if o != "N/A" {
			n++
		}
	}
	return n
}

func readParquet(src schema.Source, f func(Sample) error) error {
	pr, err := schema.NewReader[schema.SampleRow](src)
	var other *schema.VersionError
	if errors.As(err, &other) {
		return &InputError{Problem: fmt.Sprintf("samples of schema version %q", other.Have), Fix: other.UserError()}
	}
	if err != nil {
		return &InputError{Problem: fmt.Sprintf("not a samples file: %v", err), Fix: "give a file of the samples table"}
	}
	n := 0
	for {
		rows, err := pr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return &InputError{Problem: fmt.Sprintf("damaged Parquet: %v", err), Fix: "`repromill results verify` says what is damaged"}
		}
		for _, r := range rows {
			n++
			if err := f(fromRow(r, n)); err != nil {
				return err
			}
		}
	}
}

func fromRow(r schema.SampleRow, n int) Sample {
	s := Sample{Row: n, Arm: r.Arm, Repeat: int(r.Repeat), Text: r.Output, HasText: r.Output != "" || r.OutputSHA != "" || r.Outcome == "empty",
		Finish: r.FinishReason, Refusal: r.Outcome == "refused", Outcome: suites.Outcome(r.Outcome), Score: r.Score.Ptr(), Rule: r.Rule,
		Position: &r.Position, PromptSHA: r.PromptSHA,
		Item: suites.Item{ID: r.ItemID, Reference: r.Reference, Category: r.Category, Cluster: r.Cluster}}
	if r.RuleVersion != "" {
		s.Rule += "@" + r.RuleVersion
	}
	return s
}
