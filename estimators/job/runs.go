package job

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/repromill/repromill/estimators"
	"github.com/repromill/repromill/estimators/sku"
	"github.com/repromill/repromill/estimators/training"
	"github.com/repromill/repromill/planner/spec"
)

// work reads the facts that a run states about itself.
type work map[string]spec.Fact

func workOf(r *spec.Run) work {
	w := work{}
	for _, f := range r.Work {
		w[f.Name] = f
	}
	return w
}

// num is a positive finite number, 0 where the fact is missing or none.
func (w work) num(name string) float64 {
	v, err := strconv.ParseFloat(w[name].Value, 64)
	if err != nil || !(v > 0) || v > 1e30 {
		return 0
	}
	return v
}

func (w work) int(name string) int { return int(math.Min(w.num(name), 1e9)) }

// overhead is the time that a GPU is held before a program computes: the image,
// imports, weights and data (seconds; vllm-project/vllm issue 19824 and what
// image pulls take, estimation-wide assumption for foreign code).
func overhead() estimators.Interval { return estimators.Interval{P10: 40, P50: 150, P90: 900} }

// again is what is computed more than once: retries, evictions, restarts.
func again() estimators.Interval { return estimators.Interval{P10: 1, P50: 1.02, P90: 1.2} }

// runPart estimates one run of foreign code on one GPU model.
func runPart(r *spec.Run, g *sku.SKU) part {
	name := "run/" + r.ID
	if r.GPUs.Min == 0 && !mayUseGPU(r) {
		return part{name: name, cpu: true, hours: &estimators.Interval{}, fits: "yes", method: "none", kind: spec.Derived, note: "runs on the CPU: 0 GPU-hours"}
	}
	w := workOf(r)
	gpus := max(1, r.GPUs.Min)
	if n := w.int(spec.WorkHoursGPUs); n > 0 && r.GPUs.Min == 0 {
		gpus = n
	}
	if s := w.num(spec.WorkStepTime); s > 0 && w.num(spec.WorkSteps) > 0 {
		step := estimators.Interval{P10: s * 0.9, P50: s, P90: s * 1.25}
		return finish(part{name: name, gpus: gpus, method: "step", fits: "unknown", supported: supported(w, spec.WorkStepTime),
			assumptions: []string{"the step took as long on the GPU it was timed on"}}, training.Step(step, w.num(spec.WorkSteps), gpus))
	}
	j, spread, notes := jobOf(r, w, gpus)
	ops, err := j.Estimate(g, gpus)
	var missing *training.MissingError
	if err != nil && !errors.As(err, &missing) {
		return unknown(name, "none", "%v", err)
	}
	st := statedOf(w)
	switch {
	case st != nil && st.Hours > 0:
		c := st.Convert(g, gpus)
		p := part{name: name, gpus: gpus, method: "stated", fits: "unknown", assumptions: append(c.Assumptions, notes...), supported: supported(w, spec.WorkHours)}
		if ops != nil {
			p.fits = fitWord(ops.Memory)
			p.assumptions = appendNew(p.assumptions, training.Disagree(ops, c))
		}
		return finish(p, c.GPUHours)
	case ops != nil:
		p := part{name: name, gpus: ops.GPUs, method: "operations", fits: fitWord(ops.Memory), assumptions: append(ops.Assumptions, notes...), supported: append(supportedAll(w), ops.Sources...)}
		if !ops.Memory.Fits {
			p.reason = "does not fit: " + ops.Memory.Why
			return p
		}
		hours := ops.GPUHours.Times(spread)
		if j.ItemFLOPs > 0 && hours.P50 > 0 {
			p.assumptions = appendNew(p.assumptions, training.LoaderBound(j.Items/(hours.P50*3600), 0))
		}
		return finish(p, hours)
	}
	p := unknown(name, "none", "not known: %s", missing.What)
	p.gpus, p.assumptions = gpus, notes
	if r.TimeoutS > 0 {
		p.reason += fmt.Sprintf("; its time limit of %s bounds it at %.3g GPU-hours", length(float64(r.TimeoutS)), float64(r.TimeoutS)*float64(gpus)/3600)
	}
	return p
}

// finish adds what comes before and again.
func finish(p part, busy estimators.Interval) part {
	p.kind, p.busy = spec.Estimated, busy
	n := float64(max(1, p.gpus))
	p.wall = busy.Scale(3600 / n).Times(again()).Plus(overhead())
	h := p.wall.Scale(n / 3600)
	p.hours = &h
	if overhead().P50 > busy.P50*3600/n {
		p.dominant = "startup"
	}
	return p
}

func fitWord(m training.Memory) string {
	switch {
	case !m.Known:
		return "unknown"
	case m.Fits:
		return "yes"
	}
	return "no"
}

// jobOf turns facts into a job. spread is what the facts leave open as a factor.
func jobOf(r *spec.Run, w work, gpus int) (j training.Job, spread estimators.Interval, notes []string) {
	spread = estimators.Exact(1)
	j = training.Job{
		Params: w.num(spec.WorkParameters), Layers: w.int(spec.WorkLayers), Hidden: w.int(spec.WorkHidden), Context: w.int(spec.WorkContext),
		ItemFLOPs: w.num(spec.WorkItemFLOP), TotalFLOPs: w.num(spec.WorkTotalFLOP),
		Precision: w[spec.WorkPrecision].Value, Method: training.Method(w[spec.WorkMethod].Value), Class: training.Class(w[spec.WorkClass].Value),
	}
	if j.Method == "" && (r.Route == "eval_checkpoint" || r.Route == "stored_result") {
		j.Method = training.Forward
	}
	if j.Class == training.Unknown && j.Params > 0 && j.Params < 50e6 && j.ItemFLOPs == 0 {
		j.Class = training.Small
	}
	items := w.num(spec.WorkItems) * w.num(spec.WorkEpochs)
	if items == 0 && j.Method == training.Forward {
		items = w.num(spec.WorkItems)
	}
	if steps := w.num(spec.WorkSteps); steps > 0 {
		acc := math.Max(1, w.num(spec.WorkAccumulate))
		switch {
		case w.num(spec.WorkBatchAll) > 0:
			items = steps * w.num(spec.WorkBatchAll)
		case w.num(spec.WorkBatch) > 0:
			items = steps * w.num(spec.WorkBatch) * acc * float64(gpus)
		case w.num(spec.WorkBatchSome) > 0:
			items = steps * w.num(spec.WorkBatchSome) * acc
			if gpus > 1 {
				// The middle of both readings, whose ends they are.
				half := math.Sqrt(float64(gpus))
				items *= half
				spread = estimators.Interval{P10: 1 / half, P50: 1, P90: half}
				notes = append(notes, fmt.Sprintf("the code does not say whether its batch is of one GPU or of all %d", gpus))
			}
		}
	}
	j.Items = items
	if j.ItemFLOPs == 0 && j.Context > 0 {
		j.Tokens = items * float64(j.Context)
	}
	return j, spread, notes
}

func statedOf(w work) *training.Stated {
	g, err := sku.Find(w[spec.WorkHoursSKU].Value)
	if err != nil || w.num(spec.WorkHours) == 0 {
		return nil
	}
	f := w[spec.WorkHours]
	s := &training.Stated{SKU: g, GPUs: max(1, w.int(spec.WorkHoursGPUs)), Hours: w.num(spec.WorkHours), Precision: w[spec.WorkPrecision].Value, Source: "stated by the authors"}
	if len(f.Evidence) > 0 {
		s.Source = place(f.Evidence[0])
	}
	return s
}

func place(e spec.Evidence) string {
	if e.File != "" && e.Line > 0 {
		return fmt.Sprintf("%s:%d", e.File, e.Line)
	}
	if e.File != "" {
		return e.File
	}
	return e.URL
}

// supported names where a fact was read.
func supported(w work, name string) []string {
	f, ok := w[name]
	if !ok {
		return nil
	}
	at := ""
	if len(f.Evidence) > 0 {
		if p := place(f.Evidence[0]); p != "" {
			at = " (" + p + ")"
		}
	}
	return []string{name + " " + f.Value + at}
}

func supportedAll(w work) []string {
	var out []string
	for _, name := range []string{spec.WorkNetwork, spec.WorkParameters, spec.WorkItemFLOP, spec.WorkTotalFLOP, spec.WorkDataset, spec.WorkItems, spec.WorkEpochs, spec.WorkSteps,
		spec.WorkBatch, spec.WorkBatchAll, spec.WorkBatchSome, spec.WorkAccumulate, spec.WorkContext} {
		out = append(out, supported(w, name)...)
	}
	return out
}
