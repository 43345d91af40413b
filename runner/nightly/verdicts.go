package nightly

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/regress"
	"github.com/repromill/repromill/results/schema"
	"github.com/repromill/repromill/runner"
)

// params stand in the column of that name of a series' verdict.
type params struct {
	Schedule   string         `json:"schedule"`
	Slot       time.Time      `json:"slot"`
	RunID      string         `json:"run_id,omitzero"` // of the candidate
	Alarm      bool           `json:"alarm"`
	P          float64        `json:"p"`
	Resolves   float64        `json:"resolves,omitzero"`
	Since      time.Time      `json:"since,omitzero"`
	Segment    string         `json:"segment,omitzero"`
	NewSegment bool           `json:"new_segment,omitzero"`
	Key        regress.Key    `json:"key"`
	Policy     regress.Policy `json:"policy"`
}

// VerdictsID is the id under which the verdicts of a slot are committed.
func (n *Nightly) VerdictsID(slot time.Time) string {
	return runner.RunID(fmt.Sprintf("nightly/%s/verdicts/%s", n.cfg.Schedule.Name, slot.UTC().Format("2006-01-02T15:04Z")))
}

// Record commits the verdicts of every slot in which all is over as rows of the
// table verdicts, one transaction a slot, with the slot's date as partition. A
// slot that is committed stays as it was held that night. It returns how many
// slots were new.
func (n *Nightly) Record(ctx context.Context, d *dataset.Dataset, series []regress.Series, verdicts [][]regress.Verdict) (recorded int, err error) {
	at := map[int64][]schema.VerdictRow{}
	var slots []time.Time
	for i, list := range verdicts {
		for _, v := range list {
			slot := v.Slot.UTC()
			key := slot.Unix()
			if n.recorded[key] {
				continue
			}
			if at[key] == nil {
				slots = append(slots, slot)
			}
			row, err := n.row(&series[i], v)
			if err != nil {
				return recorded, err
			}
			at[key] = append(at[key], row)
		}
	}
	slices.SortFunc(slots, time.Time.Compare)
	for _, slot := range slots {
		if !n.settled(slot) {
			continue
		}
		id := n.VerdictsID(slot)
		_, err := d.Manifest(id)
		if errors.Is(err, fs.ErrNotExist) {
			tx := d.Begin(id, slot)
			if err := dataset.Add(tx, at[slot.Unix()]...); err != nil {
				return recorded, errors.Join(fmt.Errorf("record night: %w", err), tx.Abort())
			}
			_, err = tx.Commit(ctx)
			recorded++
		}
		if err != nil {
			return recorded, fmt.Errorf("record night %s: %w", slot.Format(time.RFC3339), err)
		}
		if n.recorded == nil {
			n.recorded = map[int64]bool{}
		}
		n.recorded[slot.Unix()] = true
	}
	return recorded, nil
}

// settled reports whether nothing more can happen in a slot, in any series.
func (n *Nightly) settled(at time.Time) bool {
	for i := range n.cfg.Schedule.Series {
		e := &n.cfg.Schedule.Series[i]
		for _, s := range n.cfg.Schedule.Between(e, at.Add(-time.Second), at, 1) {
			v, known := n.state.Nights[s.id()]
			if known && v.over() {
				continue
			}
			if known || n.early(at) || n.running(e)[at.Unix()] {
				return false
			}
		}
	}
	return true
}

// row is a verdict as the table has it: the change against the level before, as a
// fraction of it for speeds, and as a difference of scores for accuracy.
func (n *Nightly) row(s *regress.Series, v regress.Verdict) (schema.VerdictRow, error) {
	policy := n.cfg.Schedule.Policy.WithDefaults()
	row := schema.VerdictRow{
		Common:  schema.Common{RunID: n.VerdictsID(v.Slot), Kind: schema.Derived, Simulated: v.Simulated, SchemaVersion: schema.Version},
		Subject: "series", SubjectID: v.Key.String(), Suite: v.Key.Suite, Arm: v.Key.Model, Baseline: "level before", Metric: v.Key.Metric,
		Unit: "fraction of the level", Relation: "difference", Verdict: string(v.Status), Reason: v.Reason,
		Tolerance: schema.Float(policy.Floor), ToleranceKind: "relative", ToleranceSource: "policy", DecidedAt: n.cfg.Now().UTC(),
	}
	if slices.ContainsFunc(s.Nights, func(x regress.Night) bool { return x.Paired != nil }) {
		row.Unit, row.Baseline, row.Tolerance, row.ToleranceKind = "fraction", "the same questions", schema.Float(policy.Margin), "absolute"
	}
	if known := v.Status != regress.Missing && (v.Status != regress.InsufficientData || v.Lo != v.Hi); known {
		row.Measured, row.MeasuredLo, row.MeasuredHi = schema.Float(v.Effect), schema.Float(v.Lo), schema.Float(v.Hi)
	}
	b, err := json.Marshal(params{n.cfg.Schedule.Name, v.Slot.UTC(), v.Run, v.Alarm, v.P, v.Resolves, v.Since, v.Segment, v.NewSegment, v.Key, policy})
	if err != nil {
		return row, fmt.Errorf("encode verdict of %s: %w", v.Key, err)
	}
	row.Params = string(b)
	return row, nil
}

// untoldFor is how long an alarm is still told after its night: a webhook that was
// away for longer is not flooded when it comes back.
const untoldFor = 48 * time.Hour

// Untold returns the slots that are over and of whose alarms nobody was told yet.
func (n *Nightly) Untold() (out []time.Time) {
	for _, v := range n.state.Nights {
		if !v.Finished.IsZero() && !v.Told && n.cfg.Now().Sub(v.Finished) < untoldFor {
			out = append(out, v.Slot)
		}
	}
	slices.SortFunc(out, time.Time.Compare)
	return slices.CompactFunc(out, time.Time.Equal)
}

// Told notes that whoever is told of alarms knows those of the slots.
func (n *Nightly) Told(slots []time.Time) error {
	if len(slots) == 0 {
		return nil
	}
	for id, v := range n.state.Nights {
		if !v.Finished.IsZero() && slices.ContainsFunc(slots, v.Slot.Equal) {
			v.Told = true
			n.state.Nights[id] = v
		}
	}
	return n.save("told")
}
