package schema

import "time"

// RunRow is one run: what was asked, what code ran where, how it ended and
// what it cost. One row per run.
type RunRow struct {
	Common
	Status         string       `json:"status" col:"req,dict" doc:"How the run ended: succeeded, failed, cancelled, capped (a limit of the user's ended it) or blocked."`
	Verdict        string       `json:"verdict,omitzero" col:"dict" doc:"Overall verdict of the report; NULL when the run reached none."`
	Reason         string       `json:"reason,omitzero" doc:"Why the run ended as it did, for people."`
	Notice         string       `json:"notice,omitzero" doc:"First line of the report: what a reader must know before any number."`
	CreatedAt      time.Time    `json:"created_at,omitzero" unit:"UTC" doc:"When the run was created; its date is the partition."`
	StartedAt      time.Time    `json:"started_at,omitzero" unit:"UTC" doc:"When its first stage started."`
	FinishedAt     time.Time    `json:"finished_at,omitzero" unit:"UTC" doc:"When its last stage finished."`
	TargetInput    string       `json:"target_input,omitzero" doc:"What the user typed or pasted."`
	TargetKind     string       `json:"target_kind,omitzero" col:"dict" doc:"arxiv, hf_model, hf_dataset, hf_space, git, local or openreview."`
	TargetID       string       `json:"target_id,omitzero" col:"dict" doc:"Canonical id of the target, in the site's own form."`
	TargetVersion  string       `json:"target_version,omitzero" col:"dict" doc:"Concrete version of a paper, such as v2."`
	TargetRevision string       `json:"target_revision,omitzero" col:"dict" doc:"Commit of a hub repository."`
	TargetURL      string       `json:"target_url,omitzero" doc:"Canonical URL of the target."`
	Title          string       `json:"title,omitzero" doc:"Title of the paper or name of the model."`
	SourceRepo     string       `json:"source_repo,omitzero" col:"dict" doc:"Repository whose code ran; NULL when no code was found."`
	SourceCommit   string       `json:"source_commit,omitzero" col:"dict" doc:"Commit of source_repo, 40 hex digits."`
	SourceSubdir   string       `json:"source_subdir,omitzero" doc:"Folder of the repository that was used."`
	SourceStatedBy string       `json:"source_stated_by,omitzero" col:"dict" doc:"Who says that this is the code: user, author, author_page, hub_curated, hub_claimed, aggregator or mirror."`
	Executor       string       `json:"executor,omitzero" col:"dict" doc:"local, docker or kueue."`
	Host           string       `json:"host,omitzero" col:"dict" doc:"Machine or node that executed."`
	Sandbox        string       `json:"sandbox,omitzero" col:"dict" doc:"Isolation layers in force, joined by commas; none when switched off."`
	SandboxMissing string       `json:"sandbox_missing,omitzero" doc:"What the layers in force do not cover, joined by semicolons."`
	NoSandbox      bool         `json:"no_sandbox" doc:"The user asked for execution without isolation."`
	ImageDigest    string       `json:"image_digest,omitzero" col:"dict" doc:"Digest of the container image, sha256:…"`
	Python         string       `json:"python,omitzero" col:"dict" doc:"Python version used."`
	Framework      string       `json:"framework,omitzero" col:"dict" doc:"Main numerical framework with its version, name==version."`
	Engine         string       `json:"engine,omitzero" col:"dict" doc:"Serving engine, when one was used."`
	EngineVersion  string       `json:"engine_version,omitzero" col:"dict" doc:"Version of the serving engine."`
	SKU            string       `json:"sku,omitzero" col:"dict" doc:"GPU model, an id of the SKU catalogue; cpu without a GPU."`
	GPUs           Opt[int64]   `json:"gpus,omitzero" doc:"GPUs reserved."`
	Driver         string       `json:"driver,omitzero" col:"dict" doc:"GPU driver version."`
	Seeds          string       `json:"seeds,omitzero" doc:"Seeds of the executed runs, joined by commas."`
	QueuedS        Opt[float64] `json:"queued_s,omitzero" unit:"s" doc:"Waiting for admission."`
	FetchS         Opt[float64] `json:"fetch_s,omitzero" unit:"s" doc:"Fetching source and data."`
	PrepareS       Opt[float64] `json:"prepare_s,omitzero" unit:"s" doc:"Making the environment."`
	ExecuteS       Opt[float64] `json:"execute_s,omitzero" unit:"s" doc:"Executing the runs of the plan."`
	CollectS       Opt[float64] `json:"collect_s,omitzero" unit:"s" doc:"Reading the numbers."`
	WallS          Opt[float64] `json:"wall_s,omitzero" unit:"s" doc:"From the first stage's start to the last one's end."`
	CPUS           Opt[float64] `json:"cpu_s,omitzero" unit:"s" doc:"CPU time of all attempts."`
	MaxRSSBytes    Opt[int64]   `json:"max_rss_bytes,omitzero" unit:"B" doc:"Largest resident memory of any attempt."`
	GPUHours       Opt[float64] `json:"gpu_hours,omitzero" unit:"GPU h" doc:"GPUs reserved times hours."`
	GPUHoursBusy   Opt[float64] `json:"gpu_hours_busy,omitzero" unit:"GPU h" doc:"The part of gpu_hours in which the GPU worked."`
	USD            Opt[float64] `json:"usd,omitzero" unit:"USD" doc:"Cost at the configured prices."`
	Retries        Opt[int64]   `json:"retries,omitzero" doc:"Attempts beyond the first of each piece of work."`
	Evictions      Opt[int64]   `json:"evictions,omitzero" doc:"Times the cluster took the GPU away."`
	Deviations     Opt[int64]   `json:"deviations,omitzero" doc:"Recorded differences from what the authors declare."`
	Warnings       Opt[int64]   `json:"warnings,omitzero" doc:"Warnings in plan and run."`
	ToolVersion    string       `json:"tool_version,omitzero" col:"dict" doc:"Version of the program that made the row."`
	IdempotencyKey string       `json:"idempotency_key,omitzero" doc:"Key under which the run was submitted, when one was given."`
}

// ClaimRow is one checkable statement of a paper or repository, as planned.
type ClaimRow struct {
	Common
	ClaimID         string       `json:"claim_id" col:"req,dict,key" doc:"Id of the claim within the plan."`
	Text            string       `json:"text,omitzero" col:"text" doc:"The claim in words."`
	Metric          string       `json:"metric,omitzero" col:"dict" doc:"Name of the metric."`
	Unit            string       `json:"unit,omitzero" col:"dict" doc:"Unit of value, value_lo, value_hi and an absolute tolerance."`
	Relation        string       `json:"relation,omitzero" col:"dict" doc:"absolute, ratio or difference."`
	Direction       string       `json:"direction,omitzero" col:"dict" doc:"Which way is better: higher or lower."`
	Baseline        string       `json:"baseline,omitzero" col:"dict" doc:"What a ratio or difference is against."`
	Dataset         string       `json:"dataset,omitzero" col:"dict" doc:"Data set the number was obtained on."`
	Value           Opt[float64] `json:"value,omitzero" doc:"Stated value, in unit."`
	ValueLo         Opt[float64] `json:"value_lo,omitzero" doc:"Lower end of a stated range, in unit."`
	ValueHi         Opt[float64] `json:"value_hi,omitzero" doc:"Upper end of a stated range, in unit."`
	Tolerance       Opt[float64] `json:"tolerance,omitzero" doc:"How far a measured value may lie from the stated one."`
	ToleranceKind   string       `json:"tolerance_kind,omitzero" col:"dict" doc:"absolute (in unit) or relative (fraction of the stated value)."`
	ToleranceSource string       `json:"tolerance_source,omitzero" col:"dict" doc:"Where the tolerance comes from: stated, gold_runs, binomial, rounding or default, with the place."`
	Paper           string       `json:"paper,omitzero" col:"dict" doc:"Place in the paper: abstract, table 2, …"`
	File            string       `json:"file,omitzero" col:"dict" doc:"File of the repository that states the claim."`
	Line            Opt[int64]   `json:"line,omitzero" doc:"Line in file, from 1."`
	Checkable       string       `json:"checkable,omitzero" col:"dict" doc:"numeric, paper_only, figure_only, judge_needed or none."`
	Route           string       `json:"route,omitzero" col:"dict" doc:"Route by which the claim is checked."`
}

// MetricRow is one number: read from foreign output, computed by a suite, or
// published by somebody else.
type MetricRow struct {
	Common
	PlanRun       string       `json:"plan_run,omitzero" col:"dict,key" doc:"Id of the plan's run that gave the number."`
	Suite         string       `json:"suite,omitzero" col:"dict,key" doc:"Suite the number belongs to."`
	Task          string       `json:"task,omitzero" col:"dict,key" doc:"Part of the suite: a subject, a cell of a sweep; NULL for the whole."`
	Arm           string       `json:"arm,omitzero" col:"dict,key" doc:"Arm of a comparison."`
	Model         string       `json:"model,omitzero" col:"dict" doc:"Model in the hub's form, owner/name."`
	Revision      string       `json:"revision,omitzero" col:"dict" doc:"Commit of the model."`
	Precision     string       `json:"precision,omitzero" col:"dict" doc:"Number format of the arm: nvfp4, fp8, bf16, …"`
	SKU           string       `json:"sku,omitzero" col:"dict,key" doc:"GPU model, an id of the SKU catalogue."`
	GPUs          Opt[int64]   `json:"gpus,omitzero" doc:"GPUs the number was obtained on."`
	Metric        string       `json:"metric" col:"req,dict,key" doc:"Name of the metric."`
	Unit          string       `json:"unit,omitzero" col:"dict" doc:"Unit of value, stderr, ci_lo and ci_hi."`
	LowerIsBetter Opt[bool]    `json:"lower_is_better,omitzero" doc:"Which way is better; NULL when neither is."`
	Repetition    int64        `json:"repetition" col:"key" doc:"Repetition, from 0; -1 for a number over all repetitions."`
	Seed          Opt[int64]   `json:"seed,omitzero" doc:"Seed of this repetition."`
	Value         Opt[float64] `json:"value,omitzero" doc:"The number, in unit; NULL when status is not ok."`
	Stderr        Opt[float64] `json:"stderr,omitzero" doc:"Standard error of value, in unit."`
	CILo          Opt[float64] `json:"ci_lo,omitzero" doc:"Lower end of the interval, in unit."`
	CIHi          Opt[float64] `json:"ci_hi,omitzero" doc:"Upper end of the interval, in unit."`
	CILevel       Opt[float64] `json:"ci_level,omitzero" unit:"fraction" doc:"Confidence level of the interval, 0.95 for 95 %."`
	N             Opt[int64]   `json:"n,omitzero" doc:"Observations behind value."`
	Method        string       `json:"method,omitzero" col:"dict,key" doc:"How value and interval were obtained: stdout_regex, json, mean, bootstrap, wilson, …"`
	Status        string       `json:"status" col:"req,dict" doc:"ok, not_found, not_a_number, invalid, or client_limited (the generator was the bottleneck)."`
	Reason        string       `json:"reason,omitzero" doc:"Why status is not ok."`
	File          string       `json:"file,omitzero" col:"dict" doc:"File the number was read from."`
	Line          Opt[int64]   `json:"line,omitzero" doc:"Line in file, from 1."`
	Quote         string       `json:"quote,omitzero" col:"text" doc:"The line the number was read from."`
	MeasuredAt    time.Time    `json:"measured_at,omitzero" unit:"UTC" doc:"When the number was obtained."`
}

// EventRow is one event of a run's life.
type EventRow struct {
	Common
	Seq   int64     `json:"seq" col:"key" doc:"Rises by one within a run, from 1."`
	Time  time.Time `json:"time" unit:"UTC" doc:"When it happened."`
	Stage string    `json:"stage,omitzero" col:"dict" doc:"resolve, fetch, plan, prepare, execute, collect or commit."`
	Event string    `json:"event" col:"req,dict" doc:"What happened: run.created, stage.started, phase.changed, log, metric, verdict, …"`
	Data  string    `json:"data,omitzero" col:"text" doc:"Details as JSON text."`
}

// VerdictRow is one decision with all that it rests on: on a claim, on a
// comparison of arms, on a nightly series, or on the run as a whole.
type VerdictRow struct {
	Common
	Subject         string       `json:"subject" col:"req,dict,key" doc:"What was decided on: claim, comparison, series or run."`
	SubjectID       string       `json:"subject_id,omitzero" col:"dict,key" doc:"Id of the claim, comparison or series; NULL for the run."`
	Suite           string       `json:"suite,omitzero" col:"dict" doc:"Suite, for comparisons and series."`
	Arm             string       `json:"arm,omitzero" col:"dict" doc:"Candidate arm."`
	Baseline        string       `json:"baseline,omitzero" col:"dict" doc:"What it is compared with."`
	Metric          string       `json:"metric,omitzero" col:"dict" doc:"Name of the metric."`
	Unit            string       `json:"unit,omitzero" col:"dict" doc:"Unit of reported, measured and an absolute tolerance."`
	Relation        string       `json:"relation,omitzero" col:"dict" doc:"absolute, ratio or difference."`
	Reported        Opt[float64] `json:"reported,omitzero" doc:"Stated value, in unit."`
	ReportedLo      Opt[float64] `json:"reported_lo,omitzero" doc:"Lower end of a stated range, in unit."`
	ReportedHi      Opt[float64] `json:"reported_hi,omitzero" doc:"Upper end of a stated range, in unit."`
	Measured        Opt[float64] `json:"measured,omitzero" doc:"Measured value, in unit; NULL when none was found."`
	MeasuredLo      Opt[float64] `json:"measured_lo,omitzero" doc:"Lower end of its interval, in unit."`
	MeasuredHi      Opt[float64] `json:"measured_hi,omitzero" doc:"Upper end of its interval, in unit."`
	Tolerance       Opt[float64] `json:"tolerance,omitzero" doc:"How far measured may lie from reported; the margin of a comparison."`
	ToleranceKind   string       `json:"tolerance_kind,omitzero" col:"dict" doc:"absolute (in unit) or relative (fraction of the stated value)."`
	ToleranceSource string       `json:"tolerance_source,omitzero" col:"dict" doc:"Where the tolerance comes from."`
	Verdict         string       `json:"verdict" col:"req,dict" enum:"aligned|partially_aligned|inconclusive|not_attempted|not_checkable|equivalent|worse|better|not_worse|undecided|regression|suspicious|improvement|no_change|insufficient_data|missing" doc:"Claims: aligned, partially_aligned, inconclusive, not_attempted, not_checkable. Comparisons: equivalent, worse, better, not_worse, undecided. Series: regression, suspicious, improvement, no_change, insufficient_data, missing."`
	Reason          string       `json:"reason,omitzero" doc:"Why, in one sentence."`
	File            string       `json:"file,omitzero" col:"dict" doc:"File the measured value was read from."`
	Line            Opt[int64]   `json:"line,omitzero" doc:"Line in file, from 1."`
	Quote           string       `json:"quote,omitzero" col:"text" doc:"The line the measured value was read from."`
	GPUHours        Opt[float64] `json:"gpu_hours,omitzero" unit:"GPU h" doc:"GPUs reserved times hours spent on this decision."`
	USD             Opt[float64] `json:"usd,omitzero" unit:"USD" doc:"Cost of this decision."`
	WallS           Opt[float64] `json:"wall_s,omitzero" unit:"s" doc:"Wall-clock time spent on this decision."`
	CPUS            Opt[float64] `json:"cpu_s,omitzero" unit:"s" doc:"CPU time spent on this decision."`
	Params          string       `json:"params,omitzero" col:"text" doc:"Parameters of the decision rule as JSON text."`
	DecidedAt       time.Time    `json:"decided_at,omitzero" unit:"UTC" doc:"When it was decided."`
}

// EstimateRow is one predicted quantity beside what was measured for it.
type EstimateRow struct {
	Common
	Scope       string       `json:"scope" col:"req,dict,key" doc:"What the estimate is of: job, or suite/<id>, run/<id>, cell/<id>."`
	Model       string       `json:"model,omitzero" col:"dict,key" doc:"Model in the hub's form, owner/name."`
	Arm         string       `json:"arm,omitzero" col:"dict,key" doc:"Arm of a comparison."`
	Precision   string       `json:"precision,omitzero" col:"dict" doc:"Number format of the arm."`
	Engine      string       `json:"engine,omitzero" col:"dict" doc:"Serving engine."`
	SKU         string       `json:"sku" col:"req,dict,key" doc:"GPU model, an id of the SKU catalogue."`
	GPUs        int64        `json:"gpus" col:"key" doc:"GPUs assumed."`
	Quantity    string       `json:"quantity" col:"req,dict,key" doc:"gpu_hours, usd, wall_s, output_tokens_per_s_per_gpu, ttft_s, tpot_s, memory_bytes, …"`
	Unit        string       `json:"unit,omitzero" col:"dict" doc:"Unit of p10, p50, p90 and measured."`
	P10         Opt[float64] `json:"p10,omitzero" doc:"10 % quantile of the estimate, in unit."`
	P50         Opt[float64] `json:"p50,omitzero" doc:"Median of the estimate, in unit."`
	P90         Opt[float64] `json:"p90,omitzero" doc:"90 % quantile of the estimate, in unit."`
	Measured    Opt[float64] `json:"measured,omitzero" doc:"What the run measured, in unit; NULL when it did not."`
	Ratio       Opt[float64] `json:"ratio,omitzero" unit:"1" doc:"measured / p50."`
	Covered     Opt[bool]    `json:"covered,omitzero" doc:"p10 <= measured <= p90."`
	Method      string       `json:"method,omitzero" col:"dict" doc:"Model that made the estimate, with its version."`
	SupportedBy string       `json:"supported_by,omitzero" doc:"Measured rows the estimate rests on, in words."`
	Assumptions string       `json:"assumptions,omitzero" doc:"What was assumed, joined by semicolons."`
}

// Table implements [Row].
func (RunRow) Table() string { return Runs }

// Table implements [Row].
func (ClaimRow) Table() string { return Claims }

// Table implements [Row].
func (MetricRow) Table() string { return Metrics }

// Table implements [Row].
func (EventRow) Table() string { return Events }

// Table implements [Row].
func (VerdictRow) Table() string { return Verdicts }

// Table implements [Row].
func (EstimateRow) Table() string { return Estimates }
