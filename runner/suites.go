package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/repromill/repromill/planner/spec"
	"github.com/repromill/repromill/runner/store"
	"github.com/repromill/repromill/runner/verdict"
	"github.com/repromill/repromill/suites/accuracy"
	"github.com/repromill/repromill/suites/compare"
	"github.com/repromill/repromill/suites/data"
	"github.com/repromill/repromill/suites/harness"
	"github.com/repromill/repromill/suites/servers"
	"github.com/repromill/repromill/suites/throughput"
)

// StageSuite is the stage that carries out a suite of the plan.
func StageSuite(id string) string { return "suite/" + id }

// Suites carries out the accuracy suites of a plan; [*accuracy.Bench] does.
type Suites interface {
	// Refusal says why a suite is not attempted, "" if nothing stands against it.
	Refusal(s spec.Suite, at accuracy.Serving) string
	// Run asks what is left to ask, and may be called again after any error.
	Run(ctx context.Context, j accuracy.Job) (harness.Result, error)
	// Files are those of data sets that a suite reads.
	Files(s spec.Suite) ([]data.File, error)
	// Answers calls f for every answer that a result rests on.
	Answers(ctx context.Context, j accuracy.Job, res harness.Result, f func(harness.Answer) error) error
}

// Throughput carries out the throughput suites of a plan; [*throughput.Bench] does.
type Throughput interface {
	// Refusal says why a suite is not attempted, "" if nothing stands against it.
	Refusal(s spec.Suite) string
	// Run measures what is left to measure, and may be called again after any error.
	Run(ctx context.Context, j throughput.Job) (throughput.Result, error)
	// Rows calls f for the rows that a result rests on, in pieces.
	Rows(j throughput.Job, res throughput.Result, f func(throughput.Rows) error) error
}

// SuiteOutcome is what came of one suite of the plan.
type SuiteOutcome struct {
	Suite   string          `json:"suite"`
	Refused string          `json:"refused,omitempty"` // why it was not attempted
	Result  *harness.Result `json:"result,omitempty"`
	// Throughput is what came of a throughput suite, which has no Result.
	Throughput *throughput.Result `json:"throughput,omitempty"`
	// Shards is in how many blocks pods asked it, or on how many starts they were to
	// measure it; 0 where this program did.
	Shards int `json:"shards,omitempty"`
	// Started are the servers that this program started for it.
	Started []servers.Instance `json:"started,omitempty"`
}

// simulated reports whether a server of the suite was a simulation.
func (o SuiteOutcome) simulated() bool {
	if o.Throughput != nil {
		return o.Throughput.Simulated
	}
	return o.Result != nil && slices.ContainsFunc(o.Result.Looks, func(k harness.Look) bool { return k.Identity.Simulated() })
}

// wanted are the suites that the plan selects.
func (d *drive) wanted() (out []spec.Suite) {
	for _, s := range d.plan.Suites {
		if s.Selected {
			out = append(out, s)
		}
	}
	return out
}

// serving is where this run's arms are served: as the request says, and over it
// whatever this process was told.
func (d *drive) serving() accuracy.Serving {
	s := d.req.Serving
	more := d.cfg.Serving
	s.Endpoints = merged(s.Endpoints, more.Endpoints)
	s.Prices = merged(s.Prices, more.Prices)
	s.Servers = merged(s.Servers, more.Servers)
	if more.Judge != "" {
		s.Judge, s.JudgeModel = more.Judge, more.JudgeModel
	}
	if _, ok := d.exec.(Sharder); ok {
		s = defaultServing(s)
	}
	return d.embedded(s)
}

// endpoints are the URLs of the arms by their names.
func (d *drive) endpoints() map[string]string {
	at, out := d.serving(), map[string]string{}
	for _, s := range d.wanted() {
		for _, a := range s.Arms {
			if u := at.URL(a); u != "" {
				out[a.Name] = u
			}
		}
	}
	return out
}

func merged[V any](a, b map[string]V) map[string]V {
	out := map[string]V{}
	for _, m := range []map[string]V{a, b} {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}

// suiteRefusal says why a suite is not attempted.
func (d *drive) suiteRefusal(s spec.Suite) string {
	if s.Kind == "throughput" && d.cfg.Throughput != nil {
		if _, ok := d.exec.(Sharder); ok && !d.sharded(s) && slices.ContainsFunc(s.Arms, func(a spec.Arm) bool { return d.serving().URL(a) == "" }) {
			return "some arms are served elsewhere and some are not, so they would not be measured alike: give --endpoint ARM=URL for all of them, or for none"
		}
		if why := d.overNodes(s); why != "" {
			return why
		}
		return d.cfg.Throughput.Refusal(s)
	}
	if d.cfg.Suites == nil {
		return "this program carries out no suites"
	}
	at := d.serving()
	if !d.sharded(s) && d.req.Answers == nil && s.Placing == spec.OneAfterAnother && slices.ContainsFunc(s.Arms, func(a spec.Arm) bool { return at.URL(a) == "" }) {
		return "the plan has its arms served one after another, which pods do: run it with --executor kueue, or plan it side by side"
	}
	if d.sharded(s) {
		at.Judge = "" // pods have no network
		if why := d.overNodes(s); why != "" {
			return why
		}
	}
	if d.req.Answers != nil {
		if len(d.req.Answers[s.ID]) == 0 {
			return "none of the folders that are merged holds answers to it"
		}
		at.Judge = cmp.Or(at.Judge, "stored with the answers")
	}
	return d.cfg.Suites.Refusal(s, at)
}

// overNodes says of a suite in pods that an arm is larger than a node, "" if none is.
func (d *drive) overNodes(s spec.Suite) string {
	servers, err := sidecars(s, d.serving())
	if err != nil || d.nodeGPUs == nil || !d.sharded(s) {
		return ""
	}
	return OverNodes(s, servers, d.plan.Environment.SKU, d.nodeGPUs)
}

// servable is an error where suites would be carried out and nobody says where
// their models are served.
func (d *drive) servable() error {
	var list []spec.Suite
	for _, s := range d.wanted() {
		if d.req.Answers == nil && d.suiteRefusal(s) == "" {
			list = append(list, s)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return d.serving().Missing(list)
}

// attemptable reports whether any suite would be carried out.
func (d *drive) attemptable() bool {
	return slices.ContainsFunc(d.wanted(), func(s spec.Suite) bool { return d.suiteRefusal(s) == "" })
}

// suites carries out the plan's suites, each a stage of its own.
func (d *drive) suites(ctx context.Context) (out []SuiteOutcome, err error) {
	f := &fleet{drive: d}
	defer func() { err = errors.Join(err, f.stop(ctx)) }()
	for _, s := range d.wanted() {
		one, err := stage(ctx, d, StageSuite(s.ID), func(ctx context.Context) (SuiteOutcome, string, error) { return d.suite(ctx, s, out, f) })
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return out, nil
}

func (d *drive) suite(ctx context.Context, s spec.Suite, before []SuiteOutcome, f *fleet) (out SuiteOutcome, skipped string, err error) {
	out.Suite = s.ID
	if out.Refused = d.suiteRefusal(s); out.Refused != "" {
		return out, out.Refused, nil
	}
	if out.Refused, err = d.replaced(ctx, s); err != nil || out.Refused != "" {
		return out, out.Refused, err
	}
	spent := d.spent(before)
	if out.Refused = d.req.Caps.reached(spent); out.Refused != "" {
		return out, out.Refused, nil
	}
	left := d.req.Caps.left(spent)
	if s.Kind == "throughput" {
		return d.throughput(ctx, s, left, f)
	}
	if d.sharded(s) {
		return d.suiteInPods(ctx, s)
	}
	j := d.job(s)
	j.USD, j.Wall = left.USD, left.Wall
	var told time.Time
	begun := d.cfg.Now()
	j.Progress = func(p harness.Progress) {
		// A run of days need not tell of every second.
		now := d.cfg.Now()
		if now.Sub(told) < max(time.Second, now.Sub(begun)/500) {
			return
		}
		told = now
		_ = d.cfg.Store.Append(ctx, d.run.ID, event(StageSuite(s.ID), Progress, progressOf(p))) // what is lost is only seen later
	}
	if j.Servers, out.Started, err = f.serve(ctx, s); err != nil {
		return out, "", err
	}
	res, err := d.cfg.Suites.Run(ctx, j)
	if err != nil {
		return out, "", errors.Join(f.ended(ctx), err)
	}
	d.conclude(&out, res)
	return out, "", nil
}

// suiteInPods has a suite asked by pods.
func (d *drive) suiteInPods(ctx context.Context, s spec.Suite) (out SuiteOutcome, skipped string, err error) {
	out.Suite = s.ID
	ask := d.askShards
	if Apart(s) {
		ask = d.askApart
	}
	res, of, err := ask(ctx, s)
	out.Shards = of
	var void *voidSuite
	if errors.As(err, &void) {
		out.Refused = void.Error()
		return out, out.Refused, nil
	}
	if err != nil {
		return out, "", err
	}
	d.conclude(&out, res)
	return out, "", nil
}

// conclude tells what came of a suite.
func (d *drive) conclude(out *SuiteOutcome, res harness.Result) {
	out.Result = &res
	for _, c := range res.Comparisons {
		c.Result.Looks = nil // rows of their own
		d.pending = append(d.pending, event(StageSuite(out.Suite), VerdictGiven, c))
	}
	if res.Paid.USD > 0 {
		d.pending = append(d.pending, event(StageSuite(out.Suite), CostSeen, res.Paid))
	}
}

func (d *drive) job(s spec.Suite) accuracy.Job {
	j := accuracy.Job{Suite: s, Serving: d.serving(), Dir: filepath.Join(d.answers(), safeName(s.ID)), From: d.req.Answers[s.ID]}
	if j.From == nil {
		j.From = d.asked(s)
	}
	return j
}

// answers is the folder of what the models answered.
func (d *drive) answers() string { return filepath.Join(d.dir, "answers") }

// spent is what the run has used with the suites before.
func (d *drive) spent(before []SuiteOutcome) store.Spend {
	spent := d.total()
	for _, b := range before {
		one := b.spend()
		spent.WallSeconds += one.WallSeconds
		spent.GPUHours += one.GPUHours
		spent.USD += one.USD
	}
	return spent
}

// spend is what a suite has used: of servers of our own the time of their GPUs, of
// others what they ask for their tokens.
func (o SuiteOutcome) spend() (s store.Spend) {
	if r := o.Throughput; r != nil && o.Shards == 0 {
		return store.Spend{WallSeconds: r.Seconds, GPUHours: r.GPUSeconds / 3600, USD: r.USD}
	}
	if r := o.Result; r != nil {
		s.USD = r.Paid.USD
		if o.Shards == 0 { // else it is its attempts'
			s.WallSeconds = r.Paid.Seconds
		}
		for _, in := range o.Started {
			s.GPUHours += float64(len(in.Identity.GPUUUIDs)) * (r.Paid.Seconds + in.Facts.ReadyS) / 3600
		}
	}
	return s
}

// progressOf is a harness's progress as an event has it.
func progressOf(p harness.Progress) map[string]any {
	msg := fmt.Sprintf("%d questions complete", p.Questions)
	if p.Rate > 0 {
		msg += fmt.Sprintf(", %.3g answers/s, at most %s to go", p.Rate, p.ETA.Round(time.Second))
	}
	if p.Tokens > 0 {
		msg += fmt.Sprintf(", %.3g M tokens", float64(p.Tokens)/1e6)
	}
	if p.USD > 0 {
		msg += fmt.Sprintf(", $%.2f", p.USD)
	}
	return map[string]any{"done": p.Done, "total": p.Total, "unit": "answers", "message": msg,
		"questions": p.Questions, "rate": p.Rate, "eta_s": p.ETA.Seconds(), "tokens": p.Tokens, "usd": p.USD, "in_flight": p.InFlight, "limits": p.Limits}
}

// judgeSuites is the verdict on the candidates over all suites that were
// compared; false if none was.
func judgeSuites(plan *spec.Plan, list []SuiteOutcome) (verdict.Verdict, string, bool) {
	var named []compare.Named
	var words []string
	alpha := 0.05
	for _, o := range list {
		if o.Throughput != nil {
			words = append(words, o.ratio())
			continue
		}
		if o.Result == nil {
			words = append(words, fmt.Sprintf("%s not attempted: %s", o.Suite, o.Refused))
			continue
		}
		for _, c := range o.Result.Comparisons {
			name := o.Suite
			if len(o.Result.Comparisons) > 1 {
				name += " of " + c.Candidate
			}
			named = append(named, compare.Named{Suite: name, Result: c.Result})
			words = append(words, fmt.Sprintf("%s %s", name, strings.ReplaceAll(string(c.Result.Verdict), "_", " ")))
			alpha = c.Result.Alpha
		}
	}
	if len(named) == 0 {
		return "", strings.Join(words, "; "), false
	}
	j, err := compare.All(named, alpha)
	if err != nil { // the verdicts are those of the methods
		return verdict.Verdict(compare.Undecided), err.Error(), true
	}
	return verdict.Verdict(j.Verdict), strings.Join(words, "; "), true
}
