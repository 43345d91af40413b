package toolcalls

import "encoding/json"

// Answers reads right answers as the data set has them.
func Answers(s string) []map[string]answer {
	var out []map[string]answer
	if err := json.Unmarshal([]byte(s), &out); err != nil {
		panic(err)
	}
	return out
}
