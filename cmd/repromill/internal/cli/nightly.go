package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/repromill/repromill/cmd/repromill/internal/pipeline"
	"github.com/repromill/repromill/results/regress"
	"github.com/repromill/repromill/runner"
	"github.com/repromill/repromill/runner/nightly"
)

const nightlyExample = `  version: 1
  name: main
  zone: Europe/Berlin
  jitter: 10m
  catchup: 24h                  # the last missed slot is made up for, if it is no older
  budget: {gpu_hours: 8}        # of one night, over all series
  webhook: {url_env: NIGHTLY_WEBHOOK, format: slack}
  series:
    - name: qwen-nvfp4
      at: "30 2 * * *"
      repeats: 3
      run: [nvidia/Qwen3.6-27B-NVFP4, --baseline, Qwen/Qwen3.6-27B-FP8, --server, vllm]
      canary: [nvidia/Qwen3-8B-NVFP4, --server, "vllm==0.11.0 …"]`

func (a *app) nightlyCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "nightly",
		Short: "Run a schedule every night, and say which series have changed",
		Long: `Run the plans and suites of a schedule, each slot at most once however often this
program is restarted, and report what has changed: a regression takes two nights,
an effect above a floor, and evidence that holds over all series of the night.

A schedule is a YAML file:

` + nightlyExample + `

run: and canary: are the arguments of ` + "`repromill run`" + `, so that every executor
serves. The canary is a pinned configuration beside the candidate, by which a slow
machine is told from a slow candidate.`,
		Args: exactArgs(0, "one of its subcommands"),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.nightlyRunCmd(), a.nightlyNextCmd(), a.nightlyReportCmd(), a.nightlyAcceptCmd(), a.nightlyBisectCmd())
	return cmd
}

// schedule opens a schedule with its state.
func (a *app) schedule(path string, l nightly.Launcher) (*nightly.Schedule, *nightly.Nightly, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, usererrf("give the schedule's YAML file; `repromill nightly --help` shows one", "cannot read the schedule: %v", err)
	}
	defer f.Close()
	s, err := nightly.Parse(f)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	n, err := nightly.Open(nightly.Config{
		Schedule: s, Dir: filepath.Join(a.cfg.String("paths.state"), "nightly"), Launcher: l, Now: a.now, Hook: a.failpoint(), Sleep: pause,
		Log: func(format string, args ...any) {
			if !a.quiet {
				fmt.Fprintf(a.stderr, "%s %s\n", a.now().UTC().Format("2006-01-02 15:04:05Z"), clean(fmt.Sprintf(format, args...)))
			}
		},
	})
	return s, n, err
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func (a *app) nightlyRunCmd() *cobra.Command {
	var once bool
	cmd := &cobra.Command{
		Use:   "run SCHEDULE",
		Short: "Work the schedule until stopped, or once",
		Long: `Run what is due, and wait for the next slot, until Ctrl-C. With --once, run what is
due and end: for systems that have a cron of their own. A webhook is told of alarms.`,
		Example: "  repromill nightly run nightly.yaml\n  repromill nightly run nightly.yaml --once",
		Args:    exactArgs(1, "one SCHEDULE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			st, err := a.open(cmd.Context())
			if err != nil {
				return err
			}
			defer st.close()
			s, n, err := a.schedule(args[0], &launcher{a, st})
			if err != nil {
				return err
			}
			release, err := n.Lock()
			if err != nil {
				return err
			}
			defer func() { _ = release() }()
			read := nightly.NewReader(nightly.FromDataset(st.data), 0)
			after := func([]nightly.Slot) error { return a.settle(cmd.Context(), st, s, n, read) }
			if !once {
				return n.Loop(cmd.Context(), after)
			}
			ran, err := n.Once(cmd.Context())
			if err == nil && (len(ran) > 0 || len(n.Untold()) > 0) {
				err = after(ran)
			}
			if err == nil && len(ran) == 0 && !a.quiet {
				fmt.Fprintf(a.stderr, "nothing is due; the next slot begins %s\n", n.Next().UTC().Format("2006-01-02 15:04 MST"))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "run what is due and end")
	return cmd
}

func (a *app) nightlyNextCmd() *cobra.Command {
	var count int
	cmd := &cobra.Command{
		Use:     "next SCHEDULE",
		Short:   "List the slots to come",
		Example: "  repromill nightly next nightly.yaml -n 5",
		Args:    exactArgs(1, "one SCHEDULE"),
		RunE: func(_ *cobra.Command, args []string) error {
			s, _, err := a.schedule(args[0], nil)
			if err != nil {
				return err
			}
			type row struct {
				Series string    `json:"series"`
				Slot   time.Time `json:"slot"`
				Begins time.Time `json:"begins"`
			}
			rows := []row{}
			for i := range s.Series {
				at := a.now()
				for range min(max(count, 1), 1000) {
					slot := s.Next(&s.Series[i], at)
					if slot.At.IsZero() {
						break
					}
					rows = append(rows, row{slot.Entry.Name, slot.At, slot.Start})
					at = slot.At
				}
			}
			slices.SortStableFunc(rows, func(x, y row) int { return x.Begins.Compare(y.Begins) })
			if a.jsonOut {
				return json.NewEncoder(a.stdout).Encode(rows)
			}
			w := tabwriter.NewWriter(a.stdout, 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "SLOT\tBEGINS\tSERIES")
			for _, r := range rows {
				fmt.Fprintf(w, "%s\t%s\t%s\n", r.Slot.Format("Mon 2006-01-02 15:04 MST"), r.Begins.Format("15:04:05"), r.Series)
			}
			return w.Flush()
		},
	}
	cmd.Flags().IntVarP(&count, "count", "n", 3, "slots of each series")
	return cmd
}

func (a *app) nightlyReportCmd() *cobra.Command {
	var format string
	var fail []string
	cmd := &cobra.Command{
		Use:   "report SCHEDULE",
		Short: "Say which series have changed, and since when",
		Long: `Say of every series what its newest night means: regression, suspicious,
improvement, no_change, insufficient_data or missing.`,
		Example: "  repromill nightly report nightly.yaml\n  repromill nightly report nightly.yaml --format html > night.html\n  repromill nightly report nightly.yaml --fail-on regression,missing",
		Args:    exactArgs(1, "one SCHEDULE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			known := []string{string(regress.Regression), string(regress.Suspicious), string(regress.Improvement), string(regress.NoChange), string(regress.InsufficientData), string(regress.Missing)}
			for _, f := range fail {
				if !slices.Contains(known, f) {
					return usererrf("statuses are "+strings.Join(known, ", "), "--fail-on %q is no status of a series", f)
				}
			}
			s, n, err := a.schedule(args[0], nil)
			if err != nil {
				return err
			}
			r, err := a.nightlyReport(cmd.Context(), s, n)
			if err != nil {
				return err
			}
			if err := a.showNights(r, format); err != nil {
				return err
			}
			if len(r.Fails(fail)) > 0 {
				return &exitError{exitFailOn}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&format, "format", "terminal", "terminal, markdown, html or json")
	cmd.Flags().StringSliceVar(&fail, "fail-on", nil, "exit 3 on these statuses, comma separated")
	return cmd
}

func (a *app) showNights(r *regress.Report, format string) error {
	if a.jsonOut {
		format = "json"
	}
	switch format {
	case "markdown":
		return r.Markdown(a.stdout)
	case "html":
		return r.HTML(a.stdout)
	case "json":
		return r.JSON(a.stdout)
	case "terminal":
		var b bytes.Buffer
		if err := r.Terminal(&b, nil); err != nil {
			return err
		}
		_, err := io.WriteString(a.stdout, clean(b.String()))
		return err
	}
	return usererrf("use terminal, markdown, html or json", "there is no format %q", format)
}

func (a *app) nightlyReport(ctx context.Context, s *nightly.Schedule, n *nightly.Nightly) (*regress.Report, error) {
	ds, err := a.dataset()
	if err != nil {
		return nil, err
	}
	history, err := n.History(ctx, nightly.NewReader(nightly.FromDataset(ds), 0))
	if err != nil {
		return nil, err
	}
	return regress.NewReport(s.Name, history, s.Policy)
}

// settle draws the conclusions of the slots that are over: verdicts as rows, and
// alarms to the webhook, each once.
func (a *app) settle(ctx context.Context, st *stack, s *nightly.Schedule, n *nightly.Nightly, read *nightly.Reader) error {
	news := n.Untold()
	series, err := n.History(ctx, read)
	if err != nil {
		return err
	}
	verdicts, err := regress.Evaluate(series, s.Policy)
	if err != nil {
		return err
	}
	if _, err := n.Record(ctx, st.data, series, verdicts); err != nil {
		return err
	}
	r := regress.Summarise(s.Name, series, verdicts, s.Policy)
	if err := a.callWebhook(ctx, s.Webhook, r, news); err != nil {
		return err
	}
	return n.Told(news)
}

func (a *app) nightlyAcceptCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "accept SCHEDULE SERIES SLOT",
		Short:   "Declare the level of a slot the new normal one, which ends an open regression",
		Example: "  repromill nightly accept nightly.yaml qwen-nvfp4 2026-11-20T02:30:00Z",
		Args:    exactArgs(3, "SCHEDULE, SERIES and SLOT"),
		RunE: func(_ *cobra.Command, args []string) error {
			_, n, err := a.schedule(args[0], nil)
			if err != nil {
				return err
			}
			slot, err := time.Parse(time.RFC3339, args[2])
			if err != nil {
				return usererrf("write it as the report does, such as 2026-11-20T02:30:00Z", "%q is no slot", args[2])
			}
			return n.Accept(args[1], slot)
		},
	}
}

// launcher makes runs by this program's own `run`, so that a schedule may say
// whatever a command line may, and a run that fails takes nothing else with it.
type launcher struct {
	app *app
	st  *stack
}

// Launch implements [nightly.Launcher].
func (l *launcher) Launch(ctx context.Context, key string, args []string, left nightly.Budget) (nightly.Run, error) {
	id := runner.RunID(key)
	out := nightly.Run{ID: id}
	// A run that outlived whoever started it is waited for.
	for {
		if _, driven, err := l.st.runner.Driver(id); err != nil || !driven {
			break
		}
		if err := pause(ctx, time.Second); err != nil {
			return out, err
		}
	}
	exe, err := os.Executable()
	if err != nil {
		return out, fmt.Errorf("find this program: %w", err)
	}
	argv := slices.Concat([]string{"run"}, args, []string{"--yes", "--quiet", "--key", key})
	if left.GPUHours > 0 && !slices.Contains(args, "--max-gpu-hours") {
		argv = append(argv, "--max-gpu-hours", strconv.FormatFloat(left.GPUHours, 'g', -1, 64))
	}
	if left.USD > 0 && !slices.Contains(args, "--max-usd") {
		argv = append(argv, "--max-usd", strconv.FormatFloat(left.USD, 'g', -1, 64))
	}
	if m := l.app.cfg.String("mirror"); m != "" && !slices.Contains(args, "--mirror") {
		argv = append(argv, "--mirror", m)
	}
	cmd := exec.CommandContext(ctx, exe, argv...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 2 * time.Minute
	for k, v := range l.app.env {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	said := &tail{limit: 2000}
	cmd.Stderr = said
	err = cmd.Run()
	if ctx.Err() != nil {
		return out, ctx.Err()
	}
	outcome, gone := l.st.runner.Outcome(context.WithoutCancel(ctx), id)
	if gone == nil {
		out.GPUHours, out.USD = outcome.Spend.GPUHours, outcome.Spend.USD
		return out, nil
	}
	if err == nil {
		err = errors.New("it ended without an outcome")
	}
	if text := strings.TrimSpace(said.String()); text != "" {
		err = fmt.Errorf("%w: %s", err, clean(text))
	}
	return out, err
}

// tail keeps the last bytes written to it.
type tail struct {
	mu    sync.Mutex
	limit int
	b     []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if over := len(t.b) - t.limit; over > 0 {
		t.b = slices.Delete(t.b, 0, over)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.ToValidUTF8(string(t.b), "")
}

// slackText is text in which nothing is a link or a mention.
var slackText = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// callWebhook tells the configured address of alarms in the slots that are news;
// without any it is silent.
func (a *app) callWebhook(ctx context.Context, w nightly.Webhook, r *regress.Report, news []time.Time) error {
	text := r.AlarmText(func(slot time.Time) bool { return slices.ContainsFunc(news, slot.Equal) })
	if w.URLEnv == "" || text == "" {
		return nil
	}
	url := a.env[w.URLEnv]
	if url == "" {
		return usererrf("set it to the webhook's address", "the environment variable %s is empty", w.URLEnv)
	}
	var body any = r
	if w.Format == "slack" {
		body = map[string]string{"text": slackText.Replace(fmt.Sprintf("%s: %s\n%s", r.Schedule, pipeline.Count(1+int64(strings.Count(text, "\n")), "alarm"), text))}
	}
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode webhook: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("call webhook: the address in %s is not one", w.URLEnv) // which may hold a secret
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("call webhook of %s: no answer", w.URLEnv)
	}
	defer res.Body.Close()
	if res.StatusCode >= 300 {
		return fmt.Errorf("call webhook of %s: it answered %s", w.URLEnv, res.Status)
	}
	return nil
}
