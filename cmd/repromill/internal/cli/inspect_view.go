package cli

import (
	"fmt"
	"strings"
	"text/tabwriter"

	"github.com/repromill/repromill/planner/model"
)

// printInspection shows what was found, on one screen where the weights were
// not read.
func (a *app) printInspection(r *inspection, gpus []model.GPU) error {
	_, color := a.style(a.stdout)
	p := painter(color)
	head := []string{}
	for _, s := range []string{r.From, short12(r.Revision), r.URL, r.Access} {
		if s != "" {
			head = append(head, clean(s))
		}
	}
	fmt.Fprintf(a.stdout, "%s  (%s)\n\n", p.bold(clean(r.Model)), strings.Join(head, ", "))
	var b strings.Builder
	shown := *r.known.Model
	shown.ID = "" // said above
	known := *r.known
	known.Model = &shown
	if err := known.WriteText(&b, gpus); err != nil {
		return err
	}
	fmt.Fprint(a.stdout, clean(b.String()))
	a.printMemory(r)
	a.printPublished(r)
	for _, s := range r.Absent {
		fmt.Fprintf(a.stdout, "note: %s\n", clean(oneLine(s)))
	}
	for _, s := range r.Problems {
		fmt.Fprintf(a.stdout, "%s %s: %s (%s)\n", p.yellow("problem:"), clean(s.Where), clean(oneLine(s.Message)), s.Code)
	}
	a.printChecks(r.Claims)
	if r.Weights != nil {
		a.printWeights(r.Weights)
	}
	return nil
}

func short12(commit string) string { return commit[:min(len(commit), 12)] }

func (a *app) printMemory(r *inspection) {
	if len(r.Memory) == 0 {
		return
	}
	var cells []string
	for _, m := range r.Memory {
		cells = append(cells, fmt.Sprintf("%s at %d", size(m.KVBytes+m.StateBytes), m.Tokens))
	}
	fmt.Fprintf(a.stdout, "\none sequence, cache in %s: %s tokens\n", r.Memory[0].KVFormat, strings.Join(cells, ", "))
}

// size is a number of bytes in three digits.
func size(n int64) string {
	v, unit := float64(n), "B"
	for _, u := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if v < 1024 {
			break
		}
		v, unit = v/1024, u
	}
	return fmt.Sprintf("%.3g %s", v, unit)
}

// printPublished shows what files and hub state beside the structure.
func (a *app) printPublished(r *inspection) {
	var line []string
	for _, f := range r.Facts {
		switch f.Name {
		case "licence", "base_model", "context", "kv_format":
			line = append(line, fmt.Sprintf("%s %v", strings.ReplaceAll(f.Name, "_", " "), f.Value))
		}
	}
	if len(line) > 0 {
		fmt.Fprintf(a.stdout, "published: %s\n", clean(strings.Join(line, "; ")))
	}
	if len(r.Generation) > 0 {
		fmt.Fprintf(a.stdout, "generation defaults: %s\n", clean(oneLine(string(r.Generation))))
	}
	for _, f := range r.Flags {
		fmt.Fprintf(a.stdout, "vLLM %s: %s (%s)\n", clean(f.Flag), f.Why, f.Source)
	}
}

func (a *app) printChecks(checks []model.Check) {
	if len(checks) == 0 {
		return
	}
	fmt.Fprintln(a.stdout)
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "CLAIM\tSTATED\tBY\tVERDICT\tTHE FILES SAY")
	for _, c := range checks {
		said := firstOf(c.Measured, c.Reason)
		if c.Measured != "" && c.Reason != "" {
			said += "; " + c.Reason
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", strings.ReplaceAll(c.Kind, "_", " "), clean(oneLine(c.Reported)), clean(c.Source), strings.ReplaceAll(c.Verdict, "_", " "), clean(oneLine(said)))
	}
	w.Flush()
}
