package cli

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/suites"
	"github.com/repromill/repromill/suites/catalog"
	"github.com/repromill/repromill/suites/mmlupro"
	"github.com/repromill/repromill/suites/samples"
)

// graders is every rule this program knows.
func graders() (suites.Registry, error) {
	return catalog.All().Graders()
}

// gradedLine is what `grade --json` prints for one row.
type gradedLine struct {
	ItemID    string         `json:"item_id"`
	Arm       string         `json:"arm,omitempty"`
	Repeat    int            `json:"repeat"`
	Extracted *string        `json:"extracted"` // null if the rule found no answer
	Stage     int            `json:"stage"`
	StageName string         `json:"stage_name"`
	Outcome   suites.Outcome `json:"outcome"`
	Score     float64        `json:"score"`
	Reference string         `json:"reference"`
	Category  string         `json:"category,omitempty"`
	Cluster   string         `json:"cluster,omitempty"`
	Rule      string         `json:"rule"`
}

func (a *app) gradeCmd() *cobra.Command {
	var suite, in string
	var rules []string
	var list, side bool
	cmd := &cobra.Command{
		Use:   "grade",
		Short: "Grade stored model outputs under a named rule, without a model",
		Long: `Grade stored answers again under any published rule of their suite. Rules for one
benchmark differ by up to 24 points on the same text, so a score means little
without its rule; several rules are shown side by side.

FILE has one JSON object a line (item_id or question_id, output or response,
reference or gold, and n_options or options), a JSON array of them, or is a
Parquet file of ours; gzip is read as it is, - is standard input.

--compare-rules says how often every two rules disagree on the same text, by how
much that moves the score, and shows such texts side by side.

With --json one line is printed for each row and rule, or one object with
--compare-rules. Stage 0 means that the
rule found no answer; where the protocol would then draw an option at random, the
score is the draw's expected value.`,
		Example: `  repromill grade --suite mmlu-pro --in outputs.jsonl.gz
  repromill grade --suite mmlu-pro --rule official,last-match --in outputs.jsonl.gz
  repromill grade --suite mmlu-pro --rule all --in - --json < outputs.jsonl
  repromill grade --suite mmlu-pro --compare-rules --in outputs.jsonl.gz
  repromill grade --list`,
		Args: exactArgs(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			reg, err := graders()
			if err != nil {
				return err
			}
			if list {
				return a.listRules(reg)
			}
			if in == "" || suite == "" {
				return usererrf("see `repromill grade --help`", "--suite and --in are needed")
			}
			if side && len(rules) == 0 {
				rules = []string{"all"}
			}
			use, err := pickGraders(reg, suite, rules)
			if err != nil {
				return err
			}
			if side && len(use) < 2 {
				return usererrf("name two rules or more with --rule, or none for all", "one rule has nothing to be compared with")
			}
			return a.grade(use, in, side)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&suite, "suite", "", "suite that the answers are to, such as mmlu-pro")
	fl.StringSliceVar(&rules, "rule", nil, "rules to grade under, NAME or NAME@VERSION, or all; the suite's first if not given")
	fl.StringVar(&in, "in", "", "read answers from `FILE`; - is standard input")
	fl.BoolVar(&side, "compare-rules", false, "say where rules disagree on the same text; all rules of the suite if none is named")
	fl.BoolVar(&list, "list", false, "list suites and rules")
	return cmd
}

func pickGraders(reg suites.Registry, suite string, names []string) ([]suites.Grader, error) {
	if d, err := catalog.All().Find(suite); err == nil && len(d.Graders) > 0 {
		suite = d.Graders[0].Rule().Suite // examinations of several years share their rules
	}
	if len(names) == 0 {
		names = []string{""}
	}
	if len(names) == 1 && names[0] == "all" {
		names = nil
		for _, r := range reg.Rules(suite) {
			names = append(names, r.Name)
		}
		if names == nil {
			names = []string{""} // the registry says what there is
		}
	}
	var out []suites.Grader
	for _, n := range names {
		g, err := reg.Grader(suite, n)
		if err != nil {
			return nil, err
		}
		out = append(out, g)
	}
	return out, nil
}

func (a *app) listRules(reg suites.Registry) error {
	var rules []suites.Rule
	for _, s := range reg.Suites() {
		rules = append(rules, reg.Rules(s)...)
	}
	if a.jsonOut {
		return a.printJSON(rules)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "SUITE\tRULE\tTAKES\tSOURCE")
	for _, r := range rules {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", r.Suite, r, r.Doc, r.Source)
	}
	return w.Flush()
}

// openInput opens a file the user named; - is standard input.
func (a *app) openInput(name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(a.stdin), nil
	}
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usererrf("check the name; - is standard input", "there is no file %s", name)
	}
	if err != nil {
		return nil, usererrf("check the name and its permissions", "open %s: %v", name, err)
	}
	if info, err := f.Stat(); err == nil && info.IsDir() {
		f.Close()
		return nil, usererrf("give a file in it", "%s is a folder", name)
	}
	return f, nil
}

// readSamples reads a file of samples and names it in errors of the input.
func (a *app) readSamples(name string, f func(samples.Sample) error) error {
	r, err := a.openInput(name)
	if err != nil {
		return err
	}
	defer r.Close()
	err = samples.Read(r, f)
	var input *samples.InputError
	if errors.As(err, &input) {
		return usererrf(input.UserError(), "%s: %v", name, input)
	}
	return err
}

func (a *app) grade(use []suites.Grader, in string, side bool) error {
	out := bufio.NewWriterSize(a.stdout, 1<<16)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	sums := make([]*gradeSum, len(use))
	for i, g := range use {
		sums[i] = newGradeSum(g.Rule())
	}
	pairs := newRuleComparison(use)
	unknown := 0
	err := a.readSamples(in, func(s samples.Sample) error {
		if s.Item.OptionCount() == 0 {
			unknown++
		}
		grades, err := gradeAll(use, s)
		if err != nil {
			return err
		}
		if side {
			pairs.add(s, use, grades)
		}
		for i, grade := range grades {
			switch {
			case !a.jsonOut:
				sums[i].add(s, grade)
				if p, ok := use[i].(suites.Parted); ok {
					sums[i].arms[s.Arm].addParts(p.Parts(s.Item, grade))
				}
			case !side:
				if err := enc.Encode(gradeLine(s, use[i].Rule(), grade)); err != nil {
					return fmt.Errorf("write grades: %w", err)
				}
			}
		}
		return nil
	})
	if err != nil {
		out.Flush() // what was graded before the fault
		return err
	}
	if unknown > 0 && use[0].Rule().Suite == mmlupro.Suite && !a.quiet {
		fmt.Fprintf(a.stderr, "%d rows do not say how many options there were: ten are assumed\n", unknown)
	}
	pairs.finish()
	if !a.jsonOut {
		printGradeSums(out, sums)
		if side {
			pairs.print(out)
		}
	} else if side {
		enc.SetIndent("", "  ")
		err = enc.Encode(pairs)
	}
	if ferr := out.Flush(); err == nil {
		err = ferr
	}
	if err != nil {
		return fmt.Errorf("write grades: %w", err)
	}
	return nil
}

// gradeAll grades a row under every rule.
func gradeAll(use []suites.Grader, s samples.Sample) ([]suites.Grade, error) {
	if !s.HasText {
		return nil, &samples.InputError{Row: s.Row, Problem: "no text", Fix: "give output or response in every row"}
	}
	out := make([]suites.Grade, len(use))
	for i, g := range use {
		if c, ok := g.(suites.Checker); ok {
			if err := c.Check(s.Item); err != nil {
				return nil, &samples.InputError{Row: s.Row, Problem: err.Error(), Fix: "give the right answer as reference or gold, and n_options or options; of instructions instruction_id_list and kwargs"}
			}
		}
		end := suites.Ending{FinishReason: s.Finish, Refusal: s.Refusal, Failed: s.Outcome == suites.Error}
		out[i] = suites.Settle(g.Grade(s.Item, s.Text), s.Text, end)
	}
	return out, nil
}

func gradeLine(s samples.Sample, r suites.Rule, g suites.Grade) gradedLine {
	line := gradedLine{ItemID: s.Item.ID, Arm: s.Arm, Repeat: s.Repeat, Stage: g.Stage, StageName: r.StageName(g.Stage),
		Outcome: g.Outcome, Score: g.Score, Reference: s.Item.Reference, Category: s.Item.Category, Cluster: s.Item.Cluster, Rule: g.Rule}
	if g.Extracted != "" {
		line.Extracted = &g.Extracted
	}
	return line
}

// gradeSum is the summary of one rule, by arm.
type gradeSum struct {
	rule suites.Rule
	arms map[string]*armSum
}

type armSum struct {
	rows     int
	outcomes map[suites.Outcome]int
	stages   map[int]int
	scores   map[string][]float64 // by item
	right    map[string]int
	answers  map[string][]string
	refs     map[string]string
	asked    map[string]string // the reference by item
	moved    bool              // it differs between repeats: the same letter stands for several options
	// Of rules that grade an answer in parts, such as its instructions: those that
	// are right, and all.
	partsRight, parts int
}

func (a *armSum) addParts(right, all int) { a.partsRight, a.parts = a.partsRight+right, a.parts+all }

func newGradeSum(r suites.Rule) *gradeSum { return &gradeSum{r, map[string]*armSum{}} }

func (g *gradeSum) add(s samples.Sample, grade suites.Grade) {
	a := g.arms[s.Arm]
	if a == nil {
		a = &armSum{0, map[suites.Outcome]int{}, map[int]int{}, map[string][]float64{}, map[string]int{}, map[string][]string{}, map[string]string{}, map[string]string{}, false, 0, 0}
		g.arms[s.Arm] = a
	}
	id := s.Item.ID
	a.rows++
	a.outcomes[grade.Outcome]++
	a.stages[grade.Stage]++
	a.scores[id] = append(a.scores[id], grade.Score)
	if was, ok := a.asked[id]; ok && was != s.Item.Reference {
		a.moved = true
	}
	a.asked[id] = s.Item.Reference
	a.answers[id] = append(a.answers[id], grade.Extracted)
	if grade.Score == 1 {
		a.right[id]++
		a.refs[id] = grade.Extracted
	}
}

// repeats returns how many answers every item has, 0 if that differs.
func (a *armSum) repeats() int {
	k := -1
	for _, s := range a.scores {
		if k >= 0 && len(s) != k {
			return 0
		}
		k = len(s)
	}
	return max(k, 0)
}

func (a *armSum) mean() float64 {
	all := make([][]float64, 0, len(a.scores))
	for _, s := range a.scores {
		all = append(all, s)
	}
	return suites.Mean(all)
}

func printGradeSums(out io.Writer, sums []*gradeSum) {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprint(w, "RULE\tARM\tROWS\tSCORE %")
	for _, o := range suites.Outcomes() {
		fmt.Fprintf(w, "\t%s", strings.ToUpper(strings.ReplaceAll(string(o), "_", " ")))
	}
	fmt.Fprintln(w, "\tANSWER FOUND BY")
	for _, g := range sums {
		for _, name := range sortedKeys(g.arms) {
			a := g.arms[name]
			fmt.Fprintf(w, "%s\t%s\t%d\t%.2f", g.rule, clean(firstOf(name, "-")), a.rows, 100*a.mean())
			for _, o := range suites.Outcomes() {
				fmt.Fprintf(w, "\t%d", a.outcomes[o])
			}
			var stages []string
			for _, s := range sortedKeys(a.stages) {
				stages = append(stages, fmt.Sprintf("%s %d", g.rule.StageName(s), a.stages[s]))
			}
			fmt.Fprintf(w, "\t%s\n", strings.Join(stages, ", "))
		}
	}
	w.Flush()
	for _, g := range sums {
		for _, name := range sortedKeys(g.arms) {
			a := g.arms[name]
			if a.parts > 0 {
				fmt.Fprintf(out, "%s %s: %d of %d instructions followed, %.2f %%\n", g.rule, clean(firstOf(name, "-")), a.partsRight, a.parts, 100*float64(a.partsRight)/float64(a.parts))
			}
			a.printRepeats(out, g.rule.String(), name)
		}
	}
}

// printRepeats adds what repeats make possible to say.
func (a *armSum) printRepeats(out io.Writer, rule, name string) {
	k := a.repeats()
	if k < 2 {
		return
	}
	var pass, maj float64
	for id := range a.scores {
		p, err := suites.PassAt(k, a.right[id], k)
		if err != nil {
			return
		}
		pass += p
		if v := suites.Majority(a.answers[id]); v != "" && v == a.refs[id] {
			maj++
		}
	}
	n := float64(len(a.scores))
	fmt.Fprintf(out, "%s %s: avg@%d %.2f %%, ", rule, clean(firstOf(name, "-")), k, 100*a.mean())
	if !a.moved {
		fmt.Fprintf(out, "maj@%d %.2f %%, ", k, 100*maj/n)
	}
	fmt.Fprintf(out, "pass@%d %.2f %%\n", k, 100*pass/n)
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
