package export

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/repromill/repromill/results/dataset"
	"github.com/repromill/repromill/results/schema"
)

// eeContext is what of a run every aggregate document needs.
type eeContext struct {
	m       *dataset.Manifest
	who     Evaluator
	run     schema.RunRow
	servers map[string]schema.ServerRow // by arm
	suites  map[string]planSuite        // by id and name, as partitions spell them
}

// planSuite is what the plan beside the results says of a suite, read by its
// JSON names: results do not depend on plans.
type planSuite struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Variant string `json:"variant"`
	Dataset struct {
		Repo     string `json:"repo"`
		Revision string `json:"revision"`
		Split    string `json:"split"`
	} `json:"dataset"`
	Sampling map[string]any `json:"sampling"`
}

func newEEContext(ctx context.Context, d *dataset.Dataset, runID string, who Evaluator) (*eeContext, error) {
	m, err := d.Manifest(runID)
	if err != nil {
		return nil, err
	}
	who.Organization = firstText(who.Organization, "unknown")
	who.Relationship = firstText(who.Relationship, "other")
	c := &eeContext{m: m, who: who, servers: map[string]schema.ServerRow{}, suites: map[string]planSuite{}}
	runs, err := dataset.Read[schema.RunRow](ctx, d, runID)
	if err != nil {
		return nil, err
	}
	if len(runs) > 0 {
		c.run = runs[0]
	}
	servers, err := dataset.Read[schema.ServerRow](ctx, d, runID)
	if err != nil {
		return nil, err
	}
	for _, s := range servers {
		if _, ok := c.servers[s.Arm]; !ok {
			c.servers[s.Arm] = s
		}
	}
	doc, err := d.Attachment(runID, "plan.json")
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	var plan struct {
		Suites []planSuite `json:"suites"`
	}
	if err := json.Unmarshal(doc, &plan); err != nil {
		return c, nil // a plan of another time: what it would add is left out
	}
	for _, s := range plan.Suites {
		c.suites[strings.ToLower(s.ID)], c.suites[strings.ToLower(s.Name)] = s, s
	}
	return c, nil
}

// owner splits a model's id. A local folder has no owner.
func (c *eeContext) owner(model string) (developer, name string) {
	if o, n, ok := strings.Cut(model, "/"); ok && o != "" && n != "" && !strings.Contains(n, "/") {
		return o, n
	}
	return "unknown", firstText(model, "unknown")
}

func unix(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strconv.FormatInt(t.Unix(), 10)
}

// document is the aggregate of a suite and arm, but for its scores.
func (c *eeContext) document(r *schema.SampleRow) everyEval {
	developer, name := c.owner(r.Model)
	id := developer + "/" + name
	at := unix(c.m.Committed)
	doc := everyEval{
		SchemaVersion: EveryEvalVersion, EvaluationID: r.Suite + "/" + id + "/" + at + "/" + r.Arm, EvaluatedAt: unix(c.run.StartedAt), RetrievedAt: at,
		Source: map[string]any{"source_name": "repromill", "source_type": "evaluation_run", "source_organization_name": c.who.Organization, "evaluator_relationship": c.who.Relationship,
			"additional_details": details("run_id", c.m.RunID, "plan_hash", c.m.PlanHash, "simulated", strconv.FormatBool(r.Simulated))},
		Library: eeLibrary{"repromill", firstText(c.run.ToolVersion, c.m.Tool, "unknown")},
		Model:   eeModel{Name: name, ID: id, Developer: developer},
	}
	deployment, availability := "unknown", "unknown"
	s, served := c.servers[r.Arm]
	if served {
		deployment = "self_deployed"
		if s.Engine != "" {
			doc.Model.Engine = &eeLibrary{s.Engine, firstText(s.EngineVersion, "unknown")}
		}
	}
	if r.Revision != "" || s.Revision != "" || s.WeightsSHA != "" {
		availability = "open_weights"
	}
	doc.Model.Details = details("deployment_type", deployment, "model_availability", availability, "arm", r.Arm, "revision", firstText(r.Revision, s.Revision), "precision", firstText(r.Precision, s.Precision),
		"kv_dtype", s.KVDtype, "kernel", s.Kernel, "gpu", s.SKU, "gpus", opt(s.GPUs), "tensor_parallel", opt(s.TP), "image", s.Image, "flags", s.Flags, "weights_sha256", s.WeightsSHA)
	plan := c.suites[r.Suite]
	source := map[string]any{"dataset_name": r.Suite, "source_type": "other", "additional_details": details("dataset_sha256", r.DatasetSHA)}
	if plan.Dataset.Repo != "" {
		source = map[string]any{"dataset_name": r.Suite, "source_type": "hf_dataset", "hf_repo": plan.Dataset.Repo, "additional_details": details("dataset_sha256", r.DatasetSHA, "revision", plan.Dataset.Revision)}
		if plan.Dataset.Split != "" {
			source["hf_split"] = plan.Dataset.Split
		}
	}
	doc.Results = []eeResult{{
		ID: r.Suite + "/accuracy/" + r.Arm, Name: r.Suite, Source: source, At: doc.EvaluatedAt,
		Metric: map[string]any{"evaluation_description": strings.TrimSpace(r.Suite + " " + plan.Variant), "metric_id": "accuracy", "metric_name": "Accuracy", "metric_kind": "accuracy", "metric_unit": "proportion",
			"lower_is_better": false, "score_type": "continuous", "min_score": 0, "max_score": 1, "additional_details": details("rule", r.Rule, "rule_version", r.RuleVersion)},
		Score:      eeScore{Details: strs{}},
		Generation: generation(plan.Sampling),
	}}
	return doc
}

// generation is the sampling of the plan in the schema's fields; what it has no
// field for goes to the details.
func generation(sampling map[string]any) map[string]any {
	args, rest := map[string]any{}, strs{}
	for k, v := range sampling {
		switch n, number := v.(float64); {
		case number && (k == "temperature" || k == "top_p" || k == "top_k"):
			args[k] = n
		case number && k == "max_tokens" && n >= 1:
			args[k] = int64(n)
		default:
			if b, err := json.Marshal(v); err == nil {
				rest[k] = strings.Trim(string(b), `"`)
			}
		}
	}
	if len(sampling) == 0 {
		return nil
	}
	return map[string]any{"generation_args": args, "additional_details": rest}
}

func opt(v schema.Opt[int64]) string {
	if !v.Valid {
		return ""
	}
	return strconv.FormatInt(v.V, 10)
}
