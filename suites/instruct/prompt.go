package instruct

import (
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
