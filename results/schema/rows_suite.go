package schema

import "time"

// SampleRow is one answer of one arm to one item of an accuracy suite.
type SampleRow struct {
	Common
	Suite           string       `json:"suite" col:"partition,key" doc:"Suite, in lower case; a partition of the path."`
	DatasetSHA      string       `json:"dataset_sha,omitzero" col:"dict,key" doc:"SHA-256 of the items of the suite in their pre-declared order."`
	ItemID          string       `json:"item_id" col:"req,key" doc:"Id of the item within the data set."`
	Repeat          int64        `json:"repeat" col:"key" doc:"Repeat of the item, from 0."`
	Arm             string       `json:"arm" col:"req,dict,key" doc:"Arm of the comparison."`
	Model           string       `json:"model,omitzero" col:"dict" doc:"Model in the hub's form, owner/name."`
	Revision        string       `json:"revision,omitzero" col:"dict" doc:"Commit of the model."`
	Precision       string       `json:"precision,omitzero" col:"dict" doc:"Number format of the arm: nvfp4, fp8, bf16, …"`
	Position        int64        `json:"position" doc:"Place in the pre-declared random order, from 0."`
	Shard           int64        `json:"shard" doc:"Shard that asked the item, from 0."`
	Category        string       `json:"category,omitzero" col:"dict" doc:"Stratum of the item: a subject or task kind."`
	Cluster         string       `json:"cluster,omitzero" col:"dict" doc:"Group of items that share a passage; standard errors are clustered by it."`
	PromptSHA       string       `json:"prompt_sha,omitzero" doc:"SHA-256 of the rendered prompt."`
	Outcome         string       `json:"outcome" col:"req,dict" enum:"correct|wrong|no_answer|truncated|empty|refused|error" doc:"correct, wrong, no_answer, truncated, empty, refused or error."`
	Score           Opt[float64] `json:"score,omitzero" unit:"fraction" doc:"Score of the answer, 0 to 1; an expected value where the rule would draw at random."`
	Reference       string       `json:"reference,omitzero" col:"dict" doc:"Right answer."`
	Extracted       string       `json:"extracted,omitzero" col:"dict" doc:"Answer that the grader took from the output."`
	Stage           string       `json:"stage,omitzero" col:"dict" doc:"Name of the rule's stage that found the answer, as its grader lists them; NULL if none did."`
	Rule            string       `json:"rule,omitzero" col:"dict" doc:"Grading rule."`
	RuleVersion     string       `json:"rule_version,omitzero" col:"dict" doc:"Version of the grading rule."`
	FinishReason    string       `json:"finish_reason,omitzero" col:"dict" doc:"What the server gave: stop, length, …"`
	Output          string       `json:"output,omitzero" col:"text" doc:"The answer's text without reasoning, so that it can be graded again."`
	Reasoning       string       `json:"reasoning,omitzero" col:"text" doc:"Reasoning text, where the server gives it apart."`
	OutputSHA       string       `json:"output_sha,omitzero" doc:"SHA-256 of output."`
	PromptTokens    Opt[int64]   `json:"prompt_tokens,omitzero" unit:"token" doc:"Input tokens, as the server counted."`
	OutputTokens    Opt[int64]   `json:"output_tokens,omitzero" unit:"token" doc:"Output tokens including reasoning, as the server counted."`
	ReasoningTokens Opt[int64]   `json:"reasoning_tokens,omitzero" unit:"token" doc:"The part of output_tokens spent on reasoning."`
	CachedTokens    Opt[int64]   `json:"cached_tokens,omitzero" unit:"token" doc:"Input tokens served from a prefix cache."`
	TTFTS           Opt[float64] `json:"ttft_s,omitzero" unit:"s" doc:"From sending to the first token."`
	LatencyS        Opt[float64] `json:"latency_s,omitzero" unit:"s" doc:"From sending to the last byte."`
	Retries         int64        `json:"retries" doc:"Requests beyond the first that this answer took."`
	Seed            Opt[int64]   `json:"seed,omitzero" doc:"Sampling seed sent."`
	ServerID        string       `json:"server_id,omitzero" col:"dict" doc:"Server that answered; joins the servers table."`
	AskedAt         time.Time    `json:"asked_at,omitzero" unit:"UTC" doc:"When the request was sent."`
	Error           string       `json:"error,omitzero" doc:"What went wrong, when outcome is error."`
}

// RequestRow is one request of a load test with its raw times. Times ending in
// _s that are not spans count from the start of the cell on a monotonic clock.
type RequestRow struct {
	Common
	Suite           string       `json:"suite" col:"partition,key" doc:"Suite, in lower case; a partition of the path."`
	Arm             string       `json:"arm" col:"req,dict,key" doc:"Arm of the comparison."`
	Cell            string       `json:"cell" col:"req,dict,key" doc:"Cell of the sweep: one mode, rate or concurrency, ISL and OSL."`
	Block           int64        `json:"block" col:"key" doc:"Block of an interleaved comparison, from 0."`
	RequestID       int64        `json:"request_id" col:"key" doc:"Place in the cell's schedule, from 0."`
	Mode            string       `json:"mode,omitzero" col:"dict" doc:"open or closed loop."`
	TargetRate      Opt[float64] `json:"target_rate,omitzero" unit:"1/s" doc:"Requests per second asked for, open loop."`
	Concurrency     Opt[int64]   `json:"concurrency,omitzero" doc:"Requests in flight asked for, closed loop."`
	Worker          Opt[int64]   `json:"worker,omitzero" doc:"Worker that sent it."`
	Pool            string       `json:"pool,omitzero" col:"dict" doc:"Pool it was routed to, in a dual-pool run: short, long or shared."`
	ServerID        string       `json:"server_id,omitzero" col:"dict" doc:"Server that answered; joins the servers table."`
	Phase           string       `json:"phase,omitzero" col:"dict" doc:"warmup, ramp, steady or drain."`
	Arrival         time.Time    `json:"arrival,omitzero" unit:"UTC" doc:"Wall-clock time at which the schedule wanted it sent."`
	IntendedS       Opt[float64] `json:"intended_s,omitzero" unit:"s" doc:"When the schedule wanted it sent."`
	SentS           Opt[float64] `json:"sent_s,omitzero" unit:"s" doc:"When its last byte was written."`
	HeadersS        Opt[float64] `json:"headers_s,omitzero" unit:"s" doc:"When the response headers were in."`
	FirstByteS      Opt[float64] `json:"first_byte_s,omitzero" unit:"s" doc:"When the first byte of the body was in."`
	FirstRoleS      Opt[float64] `json:"first_role_s,omitzero" unit:"s" doc:"When the first chunk without text was in."`
	FirstReasoningS Opt[float64] `json:"first_reasoning_s,omitzero" unit:"s" doc:"When the first reasoning token was in."`
	FirstContentS   Opt[float64] `json:"first_content_s,omitzero" unit:"s" doc:"When the first content token was in."`
	EndS            Opt[float64] `json:"end_s,omitzero" unit:"s" doc:"When the response was complete."`
	TTFTS           Opt[float64] `json:"ttft_s,omitzero" unit:"s" doc:"Service time: from sent_s to the first token, reasoning or content."`
	TTFTIntendedS   Opt[float64] `json:"ttft_intended_s,omitzero" unit:"s" doc:"Response time: from intended_s to the first token; free of coordinated omission."`
	TPOTS           Opt[float64] `json:"tpot_s,omitzero" unit:"s" doc:"(e2e_s - ttft_s) / (osl - 1)."`
	E2ES            Opt[float64] `json:"e2e_s,omitzero" unit:"s" doc:"Service time: from sent_s to the last token."`
	E2EIntendedS    Opt[float64] `json:"e2e_intended_s,omitzero" unit:"s" doc:"Response time: from intended_s to the last token."`
	ITLS            []float64    `json:"itl_s,omitzero" unit:"s" doc:"Gaps between successive chunks with text, in order."`
	ClientLagS      Opt[float64] `json:"client_lag_s,omitzero" unit:"s" doc:"Largest delay by the load generator itself: sending late or reading late."`
	Chunks          Opt[int64]   `json:"chunks,omitzero" doc:"Chunks with text."`
	ISLTarget       Opt[int64]   `json:"isl_target,omitzero" unit:"token" doc:"Input tokens asked for."`
	OSLTarget       Opt[int64]   `json:"osl_target,omitzero" unit:"token" doc:"Output tokens asked for."`
	ISL             Opt[int64]   `json:"isl,omitzero" unit:"token" doc:"Input tokens, as the server counted."`
	OSL             Opt[int64]   `json:"osl,omitzero" unit:"token" doc:"Output tokens including reasoning, as the server counted."`
	ReasoningTokens Opt[int64]   `json:"reasoning_tokens,omitzero" unit:"token" doc:"The part of osl spent on reasoning."`
	CachedTokens    Opt[int64]   `json:"cached_tokens,omitzero" unit:"token" doc:"Input tokens served from a prefix cache."`
	PromptSHA       string       `json:"prompt_sha,omitzero" doc:"SHA-256 of the prompt; unique per cell, worker and repeat."`
	Status          string       `json:"status" col:"req,dict" doc:"ok, error, timeout, cancelled or incomplete (the stream ended early)."`
	HTTPStatus      Opt[int64]   `json:"http_status,omitzero" doc:"HTTP status code."`
	FinishReason    string       `json:"finish_reason,omitzero" col:"dict" doc:"What the server gave: stop, length, …"`
	SLOMet          Opt[bool]    `json:"slo_met,omitzero" doc:"Met the cell's objectives; counts towards goodput."`
	Retries         int64        `json:"retries" doc:"Requests beyond the first that this one took."`
	Error           string       `json:"error,omitzero" col:"dict" doc:"What went wrong, when status is not ok."`
}

// ComparisonRow is one look at one comparison of two arms.
type ComparisonRow struct {
	Common
	Suite            string       `json:"suite" col:"req,dict,key" doc:"Suite compared on."`
	Task             string       `json:"task,omitzero" col:"dict,key" doc:"Part of the suite; NULL for the whole."`
	Metric           string       `json:"metric" col:"req,dict,key" doc:"Metric compared."`
	Unit             string       `json:"unit,omitzero" col:"dict" doc:"Unit of value, baseline_value, diff, ci_lo, ci_hi, margin and mde."`
	Arm              string       `json:"arm" col:"req,dict,key" doc:"Candidate arm."`
	Baseline         string       `json:"baseline" col:"req,dict,key" doc:"Baseline arm."`
	Model            string       `json:"model,omitzero" col:"dict" doc:"Model of the candidate arm."`
	BaselineModel    string       `json:"baseline_model,omitzero" col:"dict" doc:"Model of the baseline arm."`
	Method           string       `json:"method" col:"req,dict,key" doc:"Test: mcnemar_midp, tost, mixture_e, wor_e, block_bootstrap_ratio, …"`
	Look             int64        `json:"look" col:"key" doc:"Look of a sequential test, from 0."`
	Final            bool         `json:"final" doc:"The look the verdict rests on."`
	Paired           bool         `json:"paired" doc:"Both arms answered the same items."`
	Margin           Opt[float64] `json:"margin,omitzero" doc:"Largest difference that counts as equal, in unit."`
	Alpha            Opt[float64] `json:"alpha,omitzero" unit:"fraction" doc:"Error rate per side."`
	N                Opt[int64]   `json:"n,omitzero" doc:"Pairs, or requests per arm, so far."`
	Clusters         Opt[int64]   `json:"clusters,omitzero" doc:"Groups of items that share a passage."`
	Value            Opt[float64] `json:"value,omitzero" doc:"Candidate's value, in unit."`
	BaselineValue    Opt[float64] `json:"baseline_value,omitzero" doc:"Baseline's value, in unit."`
	Diff             Opt[float64] `json:"diff,omitzero" doc:"Candidate minus baseline, in unit."`
	Ratio            Opt[float64] `json:"ratio,omitzero" unit:"1" doc:"Candidate over baseline."`
	Stderr           Opt[float64] `json:"stderr,omitzero" doc:"Standard error of diff, or of ratio for a ratio method."`
	CILo             Opt[float64] `json:"ci_lo,omitzero" doc:"Lower end of the interval of diff, or of ratio for a ratio method."`
	CIHi             Opt[float64] `json:"ci_hi,omitzero" doc:"Upper end of that interval."`
	CILevel          Opt[float64] `json:"ci_level,omitzero" unit:"fraction" doc:"Confidence level of the interval, 0.95 for 95 %."`
	PValue           Opt[float64] `json:"p_value,omitzero" doc:"p-value, for a fixed-size test."`
	EValue           Opt[float64] `json:"e_value,omitzero" doc:"Evidence that the difference lies within the margin; decided at 1/alpha."`
	EBeyond          Opt[float64] `json:"e_beyond,omitzero" doc:"Evidence for a difference beyond the margin; decided at 1/alpha."`
	B                Opt[int64]   `json:"b,omitzero" doc:"Discordant pairs: only the baseline was right."`
	C                Opt[int64]   `json:"c,omitzero" doc:"Discordant pairs: only the candidate was right."`
	MDE              Opt[float64] `json:"mde,omitzero" doc:"Smallest difference this n would detect, in unit."`
	QuestionsPlanned Opt[int64]   `json:"questions_planned,omitzero" doc:"Items the full suite has."`
	QuestionsUsed    Opt[int64]   `json:"questions_used,omitzero" doc:"Items asked so far."`
	QuestionsSaved   Opt[int64]   `json:"questions_saved,omitzero" doc:"Items that the early stop made unnecessary."`
	Verdict          string       `json:"verdict" col:"req,dict" enum:"equivalent|worse|better|not_worse|undecided" doc:"equivalent, worse, better, undecided, or not_worse where the claim is one-sided."`
	Reason           string       `json:"reason,omitzero" doc:"Why, in one sentence."`
	Assumptions      string       `json:"assumptions,omitzero" doc:"What the method assumes, joined by semicolons."`
	Seed             Opt[int64]   `json:"seed,omitzero" doc:"Seed of the item order or of the resampling."`
	ComputedAt       time.Time    `json:"computed_at,omitzero" unit:"UTC" doc:"When the look was taken."`
}

// LayerRow is one weight tensor of a checkpoint, with its error against a base.
type LayerRow struct {
	Common
	Model             string       `json:"model" col:"req,dict,key" doc:"Model in the hub's form, owner/name, or a local folder."`
	Revision          string       `json:"revision,omitzero" col:"dict,key" doc:"Commit of the model."`
	Tensor            string       `json:"tensor" col:"req,key" doc:"Name of the weight tensor."`
	LayerIndex        Opt[int64]   `json:"layer_index,omitzero" doc:"Number of the decoder layer, from 0."`
	Role              string       `json:"role,omitzero" col:"dict" doc:"Part of the layer: q_proj, gate_proj, lm_head, …"`
	Expert            Opt[int64]   `json:"expert,omitzero" doc:"Number of the expert, from 0."`
	Format            string       `json:"format,omitzero" col:"dict" doc:"Number format: nvfp4, fp8, mxfp4, bf16, …"`
	Math              string       `json:"math,omitzero" col:"dict" doc:"w4a4, w4a16, fp8, bf16 or mixed."`
	GroupSize         Opt[int64]   `json:"group_size,omitzero" doc:"Elements that share a scale."`
	Shape             string       `json:"shape,omitzero" col:"dict" doc:"Logical shape, such as 4096x14336."`
	Params            Opt[int64]   `json:"params,omitzero" doc:"Logical parameters, unpacked."`
	Bytes             Opt[int64]   `json:"bytes,omitzero" unit:"B" doc:"Bytes stored, scales included."`
	Against           string       `json:"against,omitzero" col:"dict" doc:"Model the errors are measured against."`
	RelError          Opt[float64] `json:"rel_error,omitzero" unit:"fraction" doc:"Norm of the difference over the norm of the base tensor."`
	MaxAbsError       Opt[float64] `json:"max_abs_error,omitzero" doc:"Largest absolute difference of an element."`
	SQNRDB            Opt[float64] `json:"sqnr_db,omitzero" unit:"dB" doc:"Signal to quantisation noise ratio."`
	Cosine            Opt[float64] `json:"cosine,omitzero" unit:"1" doc:"Cosine between the tensor and its base."`
	RTNRelError       Opt[float64] `json:"rtn_rel_error,omitzero" unit:"fraction" doc:"rel_error that plain round-to-nearest would give."`
	RTNSQNRDB         Opt[float64] `json:"rtn_sqnr_db,omitzero" unit:"dB" doc:"sqnr_db that plain round-to-nearest would give."`
	ScaleMin          Opt[float64] `json:"scale_min,omitzero" doc:"Smallest scale."`
	ScaleMax          Opt[float64] `json:"scale_max,omitzero" doc:"Largest scale."`
	ScaleZeros        Opt[int64]   `json:"scale_zeros,omitzero" doc:"Scales that are zero."`
	SaturatedFraction Opt[float64] `json:"saturated_fraction,omitzero" unit:"fraction" doc:"Elements at the format's largest value."`
	ZeroFraction      Opt[float64] `json:"zero_fraction,omitzero" unit:"fraction" doc:"Elements that are zero."`
	Rank              Opt[int64]   `json:"rank,omitzero" doc:"Place by rel_error over rtn_rel_error, worst first, from 1."`
	Flag              string       `json:"flag,omitzero" col:"dict" doc:"ok, suspicious or broken."`
	Reason            string       `json:"reason,omitzero" doc:"Why the tensor is flagged."`
	File              string       `json:"file,omitzero" col:"dict" doc:"Shard that holds the tensor."`
}

// ServerRow is the identity of a model server at one moment. A change of
// identity voids what was measured from there on.
type ServerRow struct {
	Common
	ServerID      string       `json:"server_id" col:"req,dict,key" doc:"Short hash of the identity; joins samples and requests."`
	Seq           int64        `json:"seq" col:"key" doc:"Observation within the run, from 0."`
	Arm           string       `json:"arm,omitzero" col:"dict,key" doc:"Arm the server serves."`
	Moment        string       `json:"moment,omitzero" col:"dict" doc:"before, between or after the measurements."`
	ObservedAt    time.Time    `json:"observed_at,omitzero" unit:"UTC" doc:"When the identity was read."`
	Engine        string       `json:"engine,omitzero" col:"dict" doc:"vllm, sglang, …"`
	EngineVersion string       `json:"engine_version,omitzero" col:"dict" doc:"Version of the engine."`
	Model         string       `json:"model,omitzero" col:"dict" doc:"Model served."`
	Revision      string       `json:"revision,omitzero" col:"dict" doc:"Commit of the model."`
	WeightsSHA    string       `json:"weights_sha,omitzero" col:"dict" doc:"SHA-256 over the weight files' hashes."`
	Precision     string       `json:"precision,omitzero" col:"dict" doc:"Number format of the weights."`
	KVDtype       string       `json:"kv_dtype,omitzero" col:"dict" doc:"Number format of the KV cache."`
	Kernel        string       `json:"kernel,omitzero" col:"dict" doc:"Matrix kernel the engine chose, from its log."`
	StartedAt     time.Time    `json:"started_at,omitzero" unit:"UTC" doc:"When the server process started."`
	SKU           string       `json:"sku,omitzero" col:"dict" doc:"GPU model, an id of the SKU catalogue."`
	GPUs          Opt[int64]   `json:"gpus,omitzero" doc:"GPUs the server uses."`
	TP            Opt[int64]   `json:"tp,omitzero" doc:"Tensor-parallel size."`
	GPUUUIDs      string       `json:"gpu_uuids,omitzero" doc:"UUIDs of the GPUs, joined by commas."`
	Driver        string       `json:"driver,omitzero" col:"dict" doc:"GPU driver version."`
	Image         string       `json:"image,omitzero" col:"dict" doc:"Container image with digest."`
	Endpoint      string       `json:"endpoint,omitzero" col:"dict" doc:"Base URL, without credentials."`
	Flags         string       `json:"flags,omitzero" doc:"Serving flags, joined by blanks."`
	KVTokens      Opt[int64]   `json:"kv_tokens,omitzero" unit:"token" doc:"Size of the KV pool."`
	LoadS         Opt[float64] `json:"load_s,omitzero" unit:"s" doc:"Loading the weights."`
	CompileS      Opt[float64] `json:"compile_s,omitzero" unit:"s" doc:"Compiling."`
	CaptureS      Opt[float64] `json:"capture_s,omitzero" unit:"s" doc:"Capturing graphs."`
	ReadyS        Opt[float64] `json:"ready_s,omitzero" unit:"s" doc:"From process start to the first healthy answer."`
	Changed       bool         `json:"changed" doc:"Differs from the observation before it: what follows is void."`
	Reason        string       `json:"reason,omitzero" doc:"What changed."`
}

// Table implements [Row].
func (SampleRow) Table() string { return Samples }

// Table implements [Row].
func (RequestRow) Table() string { return Requests }

// Table implements [Row].
func (ComparisonRow) Table() string { return Comparisons }

// Table implements [Row].
func (LayerRow) Table() string { return Layers }

// Table implements [Row].
func (ServerRow) Table() string { return Servers }
