package instruct

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/repromill/repromill/suites"
)

// Columns are those that a data set of such prompts has.
var Columns = []string{"key", "prompt", "instruction_id_list", "kwargs"}

// Prompt is a row of such a data set.
type Prompt struct {
	Key    Key    `json:"key"`
	Prompt string `json:"prompt"`
	Checks
}

// Key is an identifier that data sets give as a string or a number.
type Key string

// UnmarshalJSON implements [json.Unmarshaler].
func (k *Key) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, (*string)(k))
	}
	var n json.Number
	if err := json.Unmarshal(b, &n); err != nil {
		return fmt.Errorf("key %.40s is neither text nor number", b)
	}
	*k = Key(n)
	return nil
}

// Item returns the prompt as an item of a suite.
func (p Prompt) Item() suites.Item {
	return suites.Item{ID: string(p.Key), Question: p.Prompt, Reference: p.Checks.Reference()}
}

// Prompts is a suite over prompts at hand.
type Prompts struct {
	List  []Prompt
	Rules []suites.Grader   // the first is the suite's
	Skip  func(Prompt) bool // prompts to leave out; nil leaves out none
}

var _ suites.Suite = (*Prompts)(nil)

// Items implements [suites.Suite]. An error names the prompt whose instructions
// cannot be verified.
func (d *Prompts) Items(context.Context) ([]suites.Item, error) {
	items := make([]suites.Item, 0, len(d.List))
	for _, p := range d.List {
		if d.Skip != nil && d.Skip(p) {
			continue
		}
		it := p.Item()
		if c, ok := d.Rules[0].(suites.Checker); ok {
			if err := c.Check(it); err != nil {
				return nil, fmt.Errorf("list items: prompt %s: %w", it.ID, err)
			}
		}
		items = append(items, it)
	}
	return items, nil
}

// Prompt implements [suites.Suite]. Repeats are asked alike.
func (d *Prompts) Prompt(it suites.Item, _ int) (suites.Prompt, error) {
	return suites.Prompt{Messages: []suites.Message{{Role: "user", Content: it.Question}}}, nil
}

// Grader implements [suites.Suite].
func (d *Prompts) Grader() suites.Grader { return d.Rules[0] }
