// Package toolcalls is the simple and multiple questions of the Berkeley Function
// Calling Leaderboard: one call of one tool out of one to four.
package toolcalls

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/data"
)

// Suite is the suite's name.
const Suite = "tool-calls"

// commit is the revision of the data set, version 3 of the leaderboard, that this
// suite was written for.
const commit = "61fc0608cfd831fcfbbaa676ebdfef0ed963eeda"

const dataSet = "gorilla-llm/Berkeley-Function-Calling-Leaderboard"

// categories are the data set's files: questions and right answers.
var categories = []string{"simple", "multiple"}

// Definition registers the suite.
func Definition() suites.Definition {
	low, one, p95 := 0.001, 1.0, 0.95
	var files []data.File
	for _, c := range categories {
		for _, dir := range []string{"", "possible_answer/"} {
			files = append(files, data.File{Repo: dataSet, Commit: commit, Path: dir + "BFCL_v3_" + c + ".json"})
		}
	}
	return suites.Definition{
		Facts: suites.Facts{Suite: Suite, Questions: 600, Repeats: 1, Within: 0.04, DataSet: dataSet, PromptTokens: 400, OutputTokens: 300},
		Doc:   "tool calls: 600 single-turn questions of BFCL v3, one call of one tool out of one to four",
		Variants: []suites.Variant{
			{Name: "native", Rule: "ast", Doc: "tools in the request, as the leaderboard's FC mode; room to think",
				Source: "ShishirPatil/gorilla@6ea5797:berkeley-function-call-leaderboard/bfcl_eval/model_handler/utils.py", Sampling: suites.Sampling{Temperature: &low, MaxTokens: 16384}},
			{Name: "thinking", Rule: "ast", Doc: "the same with the sampling of NVIDIA's model cards",
				Source: "NVIDIA-NeMo/Skills@8b18f39:nemo_skills/dataset/bfcl_v3/__init__.py", Sampling: suites.Sampling{Temperature: &one, TopP: &p95, MaxTokens: 131072}},
		},
		Graders: Graders(),
		Data:    files,
		Open:    open,
	}
}

// Question is a row of the data set.
type Question struct {
	ID        string              `json:"id"`
	Turns     [][]suites.Message  `json:"question"`
	Functions json.RawMessage     `json:"function"`
	Answers   []map[string]answer `json:"ground_truth"` // of the file of answers
	Category  string              `json:"-"`
}

// answer is the values that each parameter may have, as they are written.
type answer map[string]json.RawMessage

func open(ctx context.Context, env suites.Env) (suites.Suite, error) {
	d := &Data{}
	for i, c := range categories {
		rows, _, err := data.Read[Question](ctx, env.Hub, env.Files[2*i], "id", "question", "function")
		if err != nil {
			return nil, err
		}
		answers, _, err := data.Read[Question](ctx, env.Hub, env.Files[2*i+1], "id", "ground_truth")
		if err != nil {
			return nil, err
		}
		right := map[string][]map[string]answer{}
		for _, a := range answers {
			right[a.ID] = a.Answers
		}
		for _, q := range rows {
			q.Answers, q.Category = right[q.ID], c
			d.Questions = append(d.Questions, q)
		}
	}
	return d, nil
}

// Data is a suite over questions at hand.
type Data struct{ Questions []Question }

// asked is the part of an item that its prompt is made of.
type asked struct {
	Messages  []suites.Message `json:"messages"`
	Functions json.RawMessage  `json:"functions"`
}

// Items implements [suites.Suite]. An error names the question that cannot be
// asked or graded.
func (d *Data) Items(context.Context) ([]suites.Item, error) {
	items := make([]suites.Item, 0, len(d.Questions))
	check := AST().(suites.Checker)
	for _, q := range d.Questions {
		if len(q.Turns) != 1 || len(q.Turns[0]) == 0 || len(q.Answers) != 1 {
			return nil, fmt.Errorf("list items: question %s has %d turns and %d right answers, want one each", q.ID, len(q.Turns), len(q.Answers))
		}
		turn := q.Turns[0]
		ask, err := json.Marshal(asked{turn, q.Functions})
		if err != nil {
			return nil, fmt.Errorf("list items: question %s: %w", q.ID, err)
		}
		ref, err := json.Marshal(map[string]any{"functions": q.Functions, "answer": q.Answers[0]})
		if err != nil {
			return nil, fmt.Errorf("list items: question %s: %w", q.ID, err)
		}
		it := suites.Item{ID: q.ID, Question: turn[len(turn)-1].Content, Reference: string(ref), Category: q.Category, Data: string(ask)}
		if err := check.Check(it); err != nil {
			return nil, fmt.Errorf("list items: question %s: %w", it.ID, err)
		}
		items = append(items, it)
	}
	return items, nil
}

// Grader implements [suites.Suite].
func (d *Data) Grader() suites.Grader { return AST() }

// Prompt implements [suites.Suite]. Repeats are asked alike.
func (d *Data) Prompt(it suites.Item, _ int) (suites.Prompt, error) {
	var ask asked
	if err := json.Unmarshal([]byte(it.Data), &ask); err != nil {
		return suites.Prompt{}, fmt.Errorf("prompt for question %s: %w", it.ID, err)
	}
	tools, err := openAI(ask.Functions)
	if err != nil {
		return suites.Prompt{}, fmt.Errorf("prompt for question %s: %w", it.ID, err)
	}
	return suites.Prompt{Messages: ask.Messages, Tools: tools}, nil
}
