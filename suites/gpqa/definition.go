package gpqa

import (
	"context"
	"fmt"
	"strings"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/data"
	"github.com/repromill/repromill/suites/pytext"
)

// file is the data set at the revision that the suite was written for. It is
// gated: whoever reads it has accepted not to publish its questions, which is why
// results hold ids, hashes and answers only.
var file = data.File{Repo: "Idavidrein/gpqa", Commit: "633f5ee89ab8ad4522a9f850766b73f62147ffdd", Path: "gpqa_diamond.csv"}

// The variants.
const (
	AA      = "aa"           // Artificial Analysis' prompt, another order in each repeat
	Box     = "boxed"        // the same with the answer in a box
	Skills  = "skills"       // the order of NeMo Skills, the same in all repeats
	Simple  = "simple-evals" // prompt, order and rule of simple-evals
	aaAsks  = "'Answer: A/B/C/D' (e.g. 'Answer: A')."
	boxAsks = `'Answer: \boxed{A/B/C/D}' (e.g. 'Answer: \boxed{A}').`
)

// Definition registers the suite.
func Definition() suites.Definition {
	one, half, p95 := 1.0, 0.5, 0.95
	card := suites.Sampling{Temperature: &one, TopP: &p95, MaxTokens: 131072}
	prompts := "NVIDIA-NeMo/Skills@8b18f39:nemo_skills/prompt/config/eval/aai/"
	return suites.Definition{
		Facts: suites.Facts{Suite: Suite, Questions: 198, Repeats: 8, Within: 0.07, DataSet: file.Repo, PromptTokens: 250, OutputTokens: 8000},
		Doc:   "GPQA Diamond: 198 questions with four options, gated data; the order of the options is fixed in advance",
		Variants: []suites.Variant{
			{Name: AA, Rule: "boxed", Doc: "prompt of Artificial Analysis as NVIDIA's cards put it; options in an order fixed by question and repeat", Source: prompts + "mcq-4choices.yaml", Sampling: card},
			{Name: Box, Rule: "boxed", Doc: "the same with the answer in a box", Source: prompts + "mcq-4choices-boxed.yaml", Sampling: card},
			{Name: Skills, Rule: "boxed", Doc: "the same prompt as aa, with the very order of NeMo Skills (seed 42), which all repeats share", Source: "NVIDIA-NeMo/Skills@8b18f39:nemo_skills/dataset/gpqa/prepare.py", Sampling: card},
			{Name: Simple, Rule: "simple-evals", Doc: "prompt, rule and the very orders of simple-evals (Random(0)), another in each repeat", Source: "openai/simple-evals@ee3b031:gpqa_eval.py",
				Sampling: suites.Sampling{Temperature: &half, MaxTokens: 2048}},
		},
		Graders: Graders(),
		Data:    []data.File{file},
		Open:    open,
	}
}

// Row is a row of the data set, as far as it is read.
type Row struct {
	ID        string `json:"Record ID"`
	Question  string `json:"Question"`
	Correct   string `json:"Correct Answer"`
	Incorrect string `json:"Incorrect Answer 1"`
	Second    string `json:"Incorrect Answer 2"`
	Third     string `json:"Incorrect Answer 3"`
	Domain    string `json:"High-level domain"`
}

// Data is the suite over rows at hand, in the order of the data set.
type Data struct {
	Variant string
	Rows    []Row

	place map[string]int // in Rows, by id
	drawn [][4]int       // orders of the variants that draw them one after the other
}

func open(ctx context.Context, env suites.Env) (suites.Suite, error) {
	rows, _, err := data.Read[Row](ctx, env.Hub, env.Files[0], "Record ID", "Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3", "High-level domain")
	if err != nil {
		return nil, err
	}
	return New(env.Variant, rows)
}

// maxRepeats is how many repeats a variant that draws its orders one after the
// other can have.
const maxRepeats = 1024

// New returns the suite over rows.
func New(variant string, rows []Row) (*Data, error) {
	d := &Data{Variant: variant, Rows: rows, place: map[string]int{}}
	for i, r := range rows {
		if _, twice := d.place[r.ID]; twice || r.ID == "" {
			return nil, fmt.Errorf("open gpqa: row %d has no id of its own: %q", i+1, r.ID)
		}
		d.place[r.ID] = i
	}
	switch variant {
	case AA, Box:
	case Skills:
		p := newPython(42)
		for range rows {
			list := [4]int{1, 2, 3, 0} // the right one stands last before it is shuffled
			p.shuffle(&list)
			d.drawn = append(d.drawn, list)
		}
	case Simple:
		p := newPython(0)
		for range len(rows) * maxRepeats {
			d.drawn = append(d.drawn, p.sample())
		}
	default:
		return nil, fmt.Errorf("open gpqa: there is no variant %q", variant)
	}
	return d, nil
}

// clean is what NeMo Skills does to options, after lm-evaluation-harness.
func clean(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(pytext.Strip(s), " [title]", ". "), "  ", " ")
}

// Items implements [suites.Suite]. Options stand in the order of the data set, the
// right one first; [Data.Asked] says how a repeat shows them.
func (d *Data) Items(context.Context) ([]suites.Item, error) {
	items := make([]suites.Item, 0, len(d.Rows))
	for _, r := range d.Rows {
		it := suites.Item{ID: r.ID, Question: r.Question, Options: []string{r.Correct, r.Incorrect, r.Second, r.Third}, Reference: "A", Category: r.Domain}
		if d.Variant != Simple {
			it.Question = strings.Trim(it.Question, "\n")
			for i, o := range it.Options {
				it.Options[i] = clean(o)
			}
		}
		for _, o := range it.Options {
			if o == "" {
				return nil, fmt.Errorf("list items: question %s has an empty option", it.ID)
			}
		}
		items = append(items, it)
	}
	return items, nil
}

// Asked implements [suites.Reordered].
func (d *Data) Asked(it suites.Item, repeat int) suites.Item {
	var order [4]int
	switch place := d.place[it.ID]; d.Variant {
	case Skills:
		order = d.drawn[place]
	case Simple:
		order = d.drawn[(repeat*len(d.Rows)+place)%len(d.drawn)]
	default:
		order = hashed(it.ID, repeat)
	}
	right := it.Options[0]
	shown := make([]string, len(order))
	for i, k := range order {
		shown[i] = it.Options[k]
	}
	it.Options = shown
	for i := len(shown) - 1; i >= 0; i-- {
		if shown[i] == right { // the first, where two are alike
			it.Reference = letters[i : i+1]
		}
	}
	return it
}

// Prompt implements [suites.Suite].
func (d *Data) Prompt(it suites.Item, repeat int) (suites.Prompt, error) {
	if len(it.Options) != 4 {
		return suites.Prompt{}, fmt.Errorf("prompt for question %s: %d options", it.ID, len(it.Options))
	}
	it = d.Asked(it, repeat)
	var b strings.Builder
	switch d.Variant {
	case Simple:
		b.WriteString("Answer the following multiple choice question. The last line of your response should be of the following format: 'Answer: $LETTER' (without quotes) " +
			"where LETTER is one of ABCD. Think step by step before answering.")
	case Box:
		b.WriteString("Answer the following multiple choice question. The last line of your response should be in the following format: " + boxAsks)
	default:
		b.WriteString("Answer the following multiple choice question. The last line of your response should be in the following format: " + aaAsks)
	}
	b.WriteString("\n\n" + it.Question + "\n")
	for i, o := range it.Options {
		fmt.Fprintf(&b, "\n%c) %s", letters[i], o)
	}
	return suites.Prompt{Messages: []suites.Message{{Role: "user", Content: b.String()}}}, nil
}

// Grader implements [suites.Suite].
func (d *Data) Grader() suites.Grader {
	if d.Variant == Simple {
		return SimpleEvals()
	}
	return Boxed()
}
