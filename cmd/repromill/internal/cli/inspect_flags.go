package cli

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/planner/model"
)

func (a *app) inspectFlagsCmd() *cobra.Command {
	var from string
	var failOn []string
	var checkpoints bool
	cmd := &cobra.Command{
		Use:   "flags NAME=COMMAND NAME=COMMAND…",
		Short: "Put the serving flags of several arms side by side, and say what makes a comparison unfair",
		Long: `Read the serving commands of the arms of a comparison (vLLM, SGLang or trtllm-serve,
with environment and docker run around them, or only the flags), put every
setting side by side, and name what makes the comparison unfair: the format of
the cache, prefix caching, lengths, engine versions, parsers, kernels.

With --checkpoints the configuration of every arm's model is read too, for what
engines take from it when no flag says otherwise: the cache's format, the length
and the sampling defaults. Two arms with the same flags may differ in these.

Nothing is started.`,
		Example: `  repromill inspect flags 'fp8=vllm serve Qwen/Qwen3.6-27B-FP8' 'nvfp4=vllm serve nvidia/Qwen3.6-27B-NVFP4 --kv-cache-dtype fp8'
  repromill inspect flags --from arms.txt --json --fail-on unfair`,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, v := range failOn {
				if v != "unfair" {
					return usererrf("the outcome is unfair", "--fail-on %q is no outcome", v)
				}
			}
			if from != "" {
				lines, err := a.readLines(from)
				if err != nil {
					return err
				}
				args = append(args, lines...)
			}
			return a.inspectFlags(cmd.Context(), args, checkpoints, len(failOn) > 0)
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "read arms from `FILE`, one NAME=COMMAND a line; - is standard input")
	cmd.Flags().BoolVar(&checkpoints, "checkpoints", false, "read what the arms' checkpoints set by themselves")
	cmd.Flags().StringSliceVar(&failOn, "fail-on", nil, "exit 3 on: unfair")
	return cmd
}

// readLines reads the lines of a file that are neither empty nor comments.
func (a *app) readLines(path string) (out []string, err error) {
	r := a.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, usererrf("name a file of lines NAME=COMMAND", "cannot read %s: %v", path, err)
		}
		defer f.Close()
		r = f
	}
	s := bufio.NewScanner(io.LimitReader(r, 1<<20))
	s.Buffer(nil, 64<<10)
	for s.Scan() {
		if line := strings.TrimSpace(s.Text()); line != "" && line[0] != '#' {
			out = append(out, line)
		}
	}
	return out, s.Err()
}

// checkpointDefaults reads what the checkpoint of an arm sets by itself.
func (a *app) checkpointDefaults(ctx context.Context, arm *model.Arm) error {
	if arm.Model == "" {
		return usererrf("name the model in the arm's command, or drop --checkpoints", "arm %s names no model", arm.Name)
	}
	s, err := a.subject(ctx, arm.Model)
	if err != nil {
		return fmt.Errorf("arm %s: %w", arm.Name, err)
	}
	m, err := s.parse(ctx)
	if err != nil {
		return fmt.Errorf("arm %s: %w", arm.Name, err)
	}
	generation, _ := s.read(ctx, "generation_config.json", 1<<20) // many models have none
	arm.Defaults = model.CheckpointDefaults(m, generation)
	return nil
}

func (a *app) inspectFlags(ctx context.Context, args []string, checkpoints, failOnUnfair bool) error {
	if len(args) < 2 {
		return usererrf("see `repromill inspect flags --help`", "inspect flags takes at least two arms, got %d", len(args))
	}
	var arms []*model.Arm
	for _, arg := range args {
		name, command, ok := strings.Cut(arg, "=")
		if !ok || name == "" || strings.ContainsAny(name, " /-") {
			return usererrf("write NAME=COMMAND, such as 'fp8=vllm serve org/model'", "%.60q has no name", arg)
		}
		arm, err := model.ParseArm(name, command)
		if err != nil {
			return err
		}
		if checkpoints {
			if err := a.checkpointDefaults(ctx, arm); err != nil {
				return err
			}
		}
		arms = append(arms, arm)
	}
	d := model.CompareArms(arms)
	var err error
	if a.jsonOut {
		err = a.printJSON(struct {
			model.FlagDiff
			Parsed []*model.Arm `json:"parsed"`
		}{d, arms})
	} else {
		err = a.printFlagDiff(d)
	}
	if err == nil && failOnUnfair && !d.Fair {
		return &exitError{exitFailOn}
	}
	return err
}

func (a *app) printFlagDiff(d model.FlagDiff) error {
	if d.Fair {
		fmt.Fprintln(a.stdout, "fair: no setting that is known to change scores or speed differs")
	} else {
		fmt.Fprintln(a.stdout, "unfair: make the settings below equal, or say in the report that they differ")
	}
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "SETTING\t%s\t\n", clean(strings.Join(d.Arms, "\t")))
	for _, r := range d.Rows {
		cells := make([]string, len(r.Values))
		for i, v := range r.Values {
			if cells[i] = "(default)"; v != "" {
				cells[i] = clean(oneLine(v))
			}
		}
		note := r.Class
		if r.Moves != "" {
			note += ": moves " + map[string]string{"both": "accuracy and speed"}[r.Moves]
			note = strings.TrimSuffix(note, " ")
			if r.Moves != "both" {
				note += " " + r.Moves
			}
			note += ", " + r.Why
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", clean(r.Setting), strings.Join(cells, "\t"), note)
	}
	return w.Flush()
}
