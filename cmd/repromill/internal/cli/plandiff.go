package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/planner"
)

func (a *app) planDiffCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "diff A B",
		Short: "Say in what two plan documents differ, and what that changes",
		Long: `Compare two plan documents field by field. Differences are grouped by what they
change: what is executed, how the result is judged, what it costs, or the wording
alone. Two plans with the same hash execute and judge the same.`,
		Example: `  repromill plan diff plan.json edited.json
  repromill plan diff --json a.json b.json`,
		Args: exactArgs(2, "two plan files"),
		RunE: func(_ *cobra.Command, args []string) error {
			x, err := a.readPlan(args[0])
			if err != nil {
				return err
			}
			y, err := a.readPlan(args[1])
			if err != nil {
				return err
			}
			d := planner.Diff(x, y)
			if a.jsonOut {
				return a.printJSON(d)
			}
			a.printDiff(d)
			return nil
		},
	}
}

func (a *app) printDiff(d planner.Differences) {
	width, color := a.style(a.stdout)
	v := planView{a.stdout, width, painter(color)}
	words := map[string]string{
		"execution": "what is executed", "verdict": "how the result is judged", "cost": "what it costs", "wording": "wording alone",
	}
	for _, g := range []string{"execution", "verdict", "cost", "wording"} {
		first := true
		for _, c := range d.Changes {
			if c.Group != g {
				continue
			}
			if first {
				fmt.Fprintln(a.stdout, v.paint.bold(words[g]))
				first = false
			}
			fmt.Fprintf(a.stdout, "  %s\n", clean(c.Field))
			for _, side := range []struct {
				sign string
				text []byte
			}{{"-", c.A}, {"+", c.B}} {
				if side.text != nil {
					v.indented("    "+side.sign+" ", clean(oneLine(string(side.text))))
				}
			}
		}
	}
	switch {
	case len(d.Changes) == 0:
		fmt.Fprintln(a.stdout, "the plans are the same")
	case d.SameHash:
		fmt.Fprintf(a.stdout, "both have the hash %s: they execute and judge the same\n", d.HashA)
	default:
		fmt.Fprintf(a.stdout, "the hashes differ: %s and %s\n", d.HashA[:16], d.HashB[:16])
	}
}

// explainPlan prints where a field comes from.
func (a *app) explainPlan(e *planner.Explanation) error {
	if a.jsonOut {
		return a.printJSON(e)
	}
	width, color := a.style(a.stdout)
	v := planView{a.stdout, width, painter(color)}
	v.row("field", v.paint.bold(clean(e.Field)))
	value := clean(oneLine(string(e.Value)))
	if len(value) > 1200 {
		value = strings.ToValidUTF8(value[:1200], "") + " … all of it with --json"
	}
	if e.Kind != "" {
		value += "  (" + string(e.Kind) + ")"
	}
	v.row("value", value)
	for i, x := range e.Evidence {
		if i == 12 {
			v.row("", fmt.Sprintf("… %d more with --json", len(e.Evidence)-i))
			break
		}
		v.row(label(i, "read at"), clean(evidenceLine(x)))
	}
	if len(e.Evidence) == 0 {
		v.row("read at", "nothing states it; it follows from what stands below")
	}
	for i, s := range e.Reasons {
		v.row(label(i, "stated"), clean(s))
	}
	for _, d := range e.Decisions {
		v.row("decided", clean(fmt.Sprintf("%s: %s", d.What, d.Chosen)))
		v.row("", clean("because "+d.Because))
		for _, o := range d.Over {
			v.row("", clean("lost: "+o))
		}
	}
	for i, w := range e.Warnings {
		v.row(label(i, "warning"), v.paint.yellow(clean(w.Message)))
	}
	v.row("hash", map[bool]string{true: "changing it makes another plan", false: "changing it leaves the plan's hash as it is"}[e.InHash])
	return nil
}
