package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/runner/nightly"
)

// bisectFlags are the options of `nightly bisect`.
type bisectFlags struct {
	nightly.BisectRequest
	values []string
	list   string
	form   string
	failOn []string
}

var bisectOutcomes = []string{"found", "no_difference", "undecided"}

func (a *app) nightlyBisectCmd() *cobra.Command {
	var f bisectFlags
	cmd := &cobra.Command{
		Use:   "bisect SCHEDULE SERIES",
		Short: "Find the image, commit or version at which a series became worse",
		Long: `Search a list, from a good end to a bad one, for the first value with which a series
of the schedule is worse. The values are given to its run: as the option --vary
names: commits with --vary commit, images with --vary image, engine versions with
--vary server and --form.

Every round measures the good end anew beside the value. A value is decided by the
test that the nights are judged by, repeated until it is, within --rounds, --runs and
the budget; what they do not decide is said. The search can be killed at any moment
and begun again with the same list: no run is made twice, and none beside a night.`,
		Example: `  repromill nightly bisect nightly.yaml qwen-nvfp4 --vary commit --list commits.txt --metric output_tok
  repromill nightly bisect nightly.yaml qwen-nvfp4 --vary server --form 'vllm=={}' --values 0.10.2,0.11.0,0.11.1
  repromill nightly bisect nightly.yaml qwen-nvfp4 --vary image --list images.txt --max-gpu-hours 20 --json`,
		Args: exactArgs(2, "SCHEDULE and SERIES"),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, v := range f.failOn {
				if !slices.Contains(bisectOutcomes, v) {
					return usererrf("outcomes are "+strings.Join(bisectOutcomes, ", "), "--fail-on %q is no outcome of a search", v)
				}
			}
			return a.bisect(cmd.Context(), &f, args[0], args[1])
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&f.Vary, "vary", "commit", "option of `repromill run` that takes the values: commit, image, server, repo, …")
	fl.StringVar(&f.form, "form", "{}", "how a value is written, with {} in its place")
	fl.StringSliceVar(&f.values, "values", nil, "the good one, those between in order, the bad one; comma separated")
	fl.StringVar(&f.list, "list", "", "read the values from `FILE`, one a line, the good one first; - is standard input")
	fl.StringVar(&f.What, "metric", "", "a part of the series' name as `repromill nightly report` prints it")
	fl.IntVar(&f.Rounds, "rounds", 10, "measure a value at most so often, at least 3")
	fl.IntVar(&f.Runs, "runs", 100, "make at most so many runs")
	fl.Float64Var(&f.Alpha, "alpha", 0.05, "chance that the answer is wrong")
	fl.Float64Var(&f.Budget.GPUHours, "max-gpu-hours", 0, "stop when this many GPU-hours are used")
	fl.Float64Var(&f.Budget.USD, "max-usd", 0, "stop when this much money is spent")
	fl.StringSliceVar(&f.failOn, "fail-on", nil, "exit 3 on these outcomes, comma separated: found, no_difference, undecided")
	return cmd
}

func (a *app) bisect(ctx context.Context, f *bisectFlags, schedule, series string) error {
	var err error
	if f.Values, err = a.bisectValues(f); err != nil {
		return err
	}
	if !strings.Contains(f.form, "{}") {
		return usererrf("write {} where the value stands, such as 'vllm=={}'", "--form %q has no place for a value", f.form)
	}
	if f.Budget.GPUHours < 0 || f.Budget.USD < 0 {
		return usererrf("give a positive number, or leave the bound out", "a bound cannot be negative")
	}
	st, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer st.close()
	s, n, err := a.schedule(schedule, &launcher{a, st})
	if err != nil {
		return err
	}
	f.Series = series
	if e := s.Find(series); e != nil {
		f.Args = func(value string) []string { return varied(e.Run, f.Vary, strings.ReplaceAll(f.form, "{}", value)) }
	}
	b, err := n.Bisect(ctx, f.BisectRequest, nightly.NewReader(nightly.FromDataset(st.data), 0))
	if err != nil {
		if ctx.Err() != nil && !a.quiet {
			fmt.Fprintln(a.stderr, "stopped; the same command goes on with what was measured")
		}
		return err
	}
	if a.jsonOut {
		err = a.printJSON(b)
	} else {
		err = showBisection(a.stdout, b)
	}
	if err == nil && slices.Contains(f.failOn, b.Outcome) {
		err = &exitError{exitFailOn}
	}
	return err
}

// varied puts an option into the arguments of a run, in place of one that is there.
func varied(args []string, option, value string) []string {
	var out []string
	for i := 0; i < len(args); i++ {
		switch {
		case args[i] == "--"+option:
			i++
		case strings.HasPrefix(args[i], "--"+option+"="):
		default:
			out = append(out, args[i])
		}
	}
	return append(out, "--"+option, value)
}

// bisectValues reads the list.
func (a *app) bisectValues(f *bisectFlags) ([]string, error) {
	if (len(f.values) == 0) == (f.list == "") {
		return nil, usererrf("list the good one first and the bad one last", "bisect takes one of --values and --list")
	}
	if f.list == "" {
		return f.values, nil
	}
	r := a.stdin
	if f.list != "-" {
		file, err := os.Open(f.list)
		if err != nil {
			return nil, usererrf("give a file with one value a line", "cannot read the list: %v", err)
		}
		defer file.Close()
		r = file
	}
	var out []string
	lines := bufio.NewScanner(io.LimitReader(r, 4<<20))
	for lines.Scan() {
		// As `git log --oneline` writes it, the rest of a line is a remark.
		if word, _, _ := strings.Cut(strings.TrimSpace(lines.Text()), " "); word != "" && !strings.HasPrefix(word, "#") {
			out = append(out, word)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, usererrf("give a file with one value a line", "cannot read the list: %v", err)
	}
	return out, nil
}

func showBisection(w io.Writer, b *nightly.Bisection) error {
	var out strings.Builder
	fmt.Fprintf(&out, "%s: %s\n", strings.ReplaceAll(b.Outcome, "_", " "), b.Reason)
	fmt.Fprintf(&out, "  series %s\n  %d runs", b.Key, b.Runs)
	if b.GPUHours > 0 {
		fmt.Fprintf(&out, ", %.3g GPU-hours", b.GPUHours)
	}
	if b.USD > 0 {
		fmt.Fprintf(&out, ", %.2f USD", b.USD)
	}
	out.WriteString("\n\n")
	t := tabwriter.NewWriter(&out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "%s\tIS\tROUNDS\tCHANGE\tWHY\n", strings.ToUpper(b.Vary))
	for _, v := range b.Values {
		change := ""
		if v.Effect != nil {
			change = fmt.Sprintf("%+.1f %% [%+.1f, %+.1f]", 100**v.Effect, 100**v.Lo, 100**v.Hi)
		}
		mark := ""
		if v.Value == b.FirstBad {
			mark = " ◀"
		}
		fmt.Fprintf(t, "%s%s\t%s\t%d\t%s\t%s\n", v.Value, mark, strings.ReplaceAll(string(v.Is), "_", " "), v.Rounds, change, oneLine(v.Reason))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(w, clean(out.String()))
	return err
}
