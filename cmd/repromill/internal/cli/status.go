package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/kueue"
	"github.com/repromill/repromill/runner/store"
)

func (a *app) statusCmd() *cobra.Command {
	var limit int
	var target string
	var cluster bool
	cmd := &cobra.Command{
		Use:   "status [RUN]",
		Short: "Show one run, or all",
		Long: `Show one run, or the newest ones. --cluster counts all Jobs of the namespace
instead, whoever submitted them: how many are in which state, what waits longest,
what somebody has to do, and when all of it is expected to end.`,
		Example: "  repromill status\n  repromill status 01K9… --json\n  repromill status --target 2604.08075\n  repromill status --cluster",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cluster {
				if len(args) > 0 {
					return usererrf("leave out one of the two", "--cluster is about all runs and %s is one", args[0])
				}
				return a.statusCluster(cmd.Context())
			}
			st, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer st.close()
			if len(args) == 1 {
				return a.statusOne(cmd.Context(), st, args[0])
			}
			runs, err := st.store.List(cmd.Context(), store.Filter{Target: target, Limit: limit})
			if err != nil {
				return err
			}
			if a.jsonOut {
				if runs == nil {
					runs = []store.Run{}
				}
				return a.printJSON(runs)
			}
			if len(runs) == 0 {
				fmt.Fprintln(a.stdout, "no runs yet; start one with: repromill run TARGET")
				return nil
			}
			w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
			fmt.Fprintln(w, "RUN\tCREATED (UTC)\tSTATE\tVERDICT\tTARGET")
			for _, r := range runs {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.ID, r.Created.UTC().Format("2006-01-02 15:04"), r.State, firstOf(r.Verdict, "-"), clean(r.Target))
			}
			if err := w.Flush(); err != nil {
				return err
			}
			return a.moreRuns(cmd.Context(), st, target, len(runs))
		},
	}
	cmd.Flags().BoolVar(&cluster, "cluster", false, "count the Jobs in the cluster instead")
	cmd.Flags().IntVarP(&limit, "limit", "n", 30, "show at most this many")
	cmd.Flags().StringVar(&target, "target", "", "only targets that contain this text")
	return cmd
}

// moreRuns says what a list leaves out.
func (a *app) moreRuns(ctx context.Context, st *stack, target string, shown int) error {
	counts, err := st.store.Counts(ctx)
	if err != nil || target != "" {
		return err
	}
	var all int64
	var parts []string
	for _, s := range sortedKeys(counts) {
		all += counts[s]
		parts = append(parts, fmt.Sprintf("%d %s", counts[s], s))
	}
	if all > int64(shown) {
		fmt.Fprintf(a.stdout, "\n%d of %d runs (%s); see more with -n\n", shown, all, strings.Join(parts, ", "))
	}
	return nil
}

// openRun opens the stack and finds the run that an id, or the beginning of
// one, names.
func (a *app) openRun(ctx context.Context, id string) (*stack, store.Run, error) {
	st, err := a.open(ctx)
	if err != nil {
		return nil, store.Run{}, err
	}
	run, err := st.store.Find(ctx, id)
	if err != nil {
		st.close()
		return nil, run, notFound(err, id)
	}
	return st, run, nil
}

// runStatus is what `status RUN --json` prints.
type runStatus struct {
	store.Run
	Stages   map[string]store.Stage `json:"stages"`
	Attempts []store.Attempt        `json:"attempts"`
	DrivenBy int                    `json:"driven_by,omitempty"`
	Outcome  *runner.Outcome        `json:"outcome,omitempty"`
	Jobs     []kueue.Line           `json:"jobs,omitempty"` // in the cluster, while the run has some there
	Unseen   string                 `json:"cluster_unseen,omitempty"`
}

func (a *app) statusOne(ctx context.Context, st *stack, id string) error {
	run, err := st.store.Find(ctx, id)
	if err != nil {
		return notFound(err, id)
	}
	s := runStatus{Run: run}
	if s.Stages, err = st.store.Stages(ctx, run.ID); err != nil {
		return err
	}
	if s.Attempts, err = st.store.Attempts(ctx, run.ID); err != nil {
		return err
	}
	if pid, driven, err := st.runner.Driver(run.ID); err == nil && driven {
		s.DrivenBy = pid
	}
	if out, err := st.runner.Outcome(ctx, run.ID); err == nil {
		s.Outcome = &out
	} else if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if onCluster(s.Attempts) {
		if s.Jobs, err = a.jobsOf(ctx, run.ID); err != nil {
			s.Unseen = err.Error()
		}
	}
	if a.jsonOut {
		return a.printJSON(s)
	}
	w := tabwriter.NewWriter(a.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "run\t%s\n", run.ID)
	fmt.Fprintf(w, "target\t%s\n", clean(run.Target))
	fmt.Fprintf(w, "state\t%s\n", run.State)
	if run.Error != "" {
		fmt.Fprintf(w, "reason\t%s\n", clean(oneLine(run.Error)))
	}
	fmt.Fprintf(w, "created\t%s\n", run.Created.UTC().Format(time.RFC3339))
	for _, name := range stagesOf(s.Stages) {
		if sg, ok := s.Stages[name]; ok {
			took := ""
			if !sg.Finished.IsZero() {
				took = fmt.Sprintf(" in %.1fs", sg.Finished.Sub(sg.Started).Seconds())
			}
			fmt.Fprintf(w, "%s\t%s%s\n", name, sg.State, took)
		}
	}
	printJobs(w, s.Jobs)
	if s.Unseen != "" {
		fmt.Fprintf(w, "cluster\tcannot be seen: %s\n", clean(oneLine(s.Unseen)))
	}
	if run.Verdict != "" {
		fmt.Fprintf(w, "verdict\t%s\n", run.Verdict)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	switch {
	case run.State.Final() && run.Verdict != "":
		fmt.Fprintf(a.stdout, "\nthe report: repromill results show %s\n", run.ID)
	case s.DrivenBy != 0:
		fmt.Fprintf(a.stdout, "\ndriven by process %d; follow it: repromill watch %s\n", s.DrivenBy, run.ID)
	case run.State == store.Planned:
		fmt.Fprintf(a.stdout, "\nit waits for approval; look at it and approve with: repromill run --resume %s\n", run.ID)
	case !run.State.Final():
		fmt.Fprintf(a.stdout, "\nnobody drives it; go on with: repromill run --resume %s\n", run.ID)
	}
	return nil
}

func (a *app) watchCmd() *cobra.Command {
	var cluster bool
	cmd := &cobra.Command{
		Use:   "watch RUN | --cluster",
		Short: "Follow a run's events until it ends",
		Long: `Follow a run's events until it ends. --cluster follows the counts of all Jobs of
the namespace until it is stopped, as ` + "`repromill status --cluster`" + ` shows them once.`,
		Example: "  repromill watch 01K9…\n  repromill watch 01K9… --json | jq .kind\n  repromill watch --cluster",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			if cluster == (len(args) == 1) {
				return usererrf("see `repromill watch --help`", "watch takes one of RUN and --cluster")
			}
			if cluster {
				return a.watchCluster(ctx)
			}
			st, run, err := a.openRun(ctx, args[0])
			if err != nil {
				return err
			}
			defer st.close()
			ui := a.ui()
			enc := json.NewEncoder(a.stdout)
			return st.runner.Follow(ctx, run.ID, 0, nil, func(e runner.Event) error {
				if a.jsonOut {
					return enc.Encode(e)
				}
				ui.event(e)
				return nil
			})
		},
	}
	cmd.Flags().BoolVar(&cluster, "cluster", false, "follow the Jobs in the cluster instead")
	return cmd
}

func (a *app) logsCmd() *cobra.Command {
	var follow bool
	var attempt string
	var pods podLogs
	cmd := &cobra.Command{
		Use:   "logs RUN",
		Short: "Print what a run's commands printed",
		Long: `Print what a run's commands printed, and what the clients of its suites said.

--shard and --container print what the pods of a run in the cluster print by
themselves while they are there, those of worker clusters included: a suite's pod
has a container "server-ARM" for each arm and one "client".`,
		Example: `  repromill logs 01K9…
  repromill logs -f 01K9…
  repromill logs 01K9… --attempt 01K9…/execute/minimal-1/0/0
  repromill logs 01K9… --shard 3 --container server-nvfp4
  repromill logs 01K9… --shard 3 --container server-nvfp4 --previous`,
		Args: exactArgs(1, "one run id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			st, run, err := a.openRun(ctx, args[0])
			if err != nil {
				return err
			}
			defer st.close()
			if pods.asked() {
				if attempt != "" {
					return usererrf("leave out one of them", "--attempt is about what is kept, --shard, --container and --previous about pods")
				}
				return a.podLogs(ctx, run.ID, pods, follow)
			}
			return a.logs(ctx, st, run.ID, attempt, follow)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the run ends")
	cmd.Flags().StringVar(&attempt, "attempt", "", "only this attempt (see `repromill status RUN --json`)")
	pods.add(cmd.Flags())
	return cmd
}

// logs prints the output of the attempts in the order they were made.
func (a *app) logs(ctx context.Context, st *stack, id, only string, follow bool) error {
	at := map[string]int64{}
	shown := 0
	for {
		run, err := st.store.Run(ctx, id)
		if err != nil {
			return err
		}
		attempts, err := st.runner.Attempts(ctx, id)
		if err != nil {
			return err
		}
		for _, t := range attempts {
			if t.Handle == "" || (only != "" && t.Key != only) {
				continue
			}
			if _, seen := at[t.Key]; !seen {
				shown++
				at[t.Key] = 0
				if only == "" {
					fmt.Fprintf(a.stderr, "== %s\n", t.Key)
				}
			}
			n, err := a.copyLog(ctx, st, id, t, at[t.Key])
			if err != nil {
				return err
			}
			at[t.Key] += n
		}
		if !follow || run.State.Final() {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
	if shown == 0 {
		fmt.Fprintln(a.stderr, "nothing has been executed yet")
	}
	return nil
}

func (a *app) copyLog(ctx context.Context, st *stack, id string, t runner.AttemptInfo, from int64) (int64, error) {
	r, err := st.runner.Logs(ctx, id, t, from)
	if errors.Is(err, os.ErrNotExist) {
		fmt.Fprintf(a.stderr, "the output of %s is gone\n", t.Key)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer r.Close()
	return io.Copy(shown(a.stdout), r)
}

func (a *app) cancelCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "cancel RUN",
		Short:   "Stop a run for good",
		Example: "  repromill cancel 01K9…",
		Args:    exactArgs(1, "one run id"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			st, run, err := a.openRun(ctx, args[0])
			if err != nil {
				return err
			}
			defer st.close()
			state, err := st.runner.Cancel(ctx, run.ID, firstOf(a.env["USER"], a.env["LOGNAME"], "unknown"))
			if err != nil {
				return err
			}
			if a.jsonOut {
				return a.printJSON(map[string]any{"run_id": run.ID, "state": state})
			}
			if state == store.Cancelled {
				fmt.Fprintf(a.stdout, "run %s is cancelled\n", run.ID)
			} else {
				fmt.Fprintf(a.stdout, "run %s is asked to stop; its driver does so in a moment\n", run.ID)
			}
			return nil
		},
	}
}

// stagesOf lists the stages of a run in their order, with its suites before what
// is committed of them.
func stagesOf(begun map[string]store.Stage) []string {
	out := slices.DeleteFunc(runner.Stages(), func(s string) bool { return s == runner.StageCommit })
	for _, name := range sortedKeys(begun) {
		if !slices.Contains(runner.Stages(), name) {
			out = append(out, name)
		}
	}
	return append(out, runner.StageCommit)
}
