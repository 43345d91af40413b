package suites

// Facts is what is known about a suite before anything is asked.
type Facts struct {
	Suite     string   `json:"suite"`
	Questions int      `json:"questions"`
	Repeats   int      `json:"repeats"` // per question, as published comparisons do
	Within    float64  `json:"within"`  // assumed mean variance p(1-p) of one answer around its question's own rate
	DataSet   string   `json:"dataset"` // on the hub, or where it comes from
	Needs     []string `json:"needs,omitempty"`
}

// Known returns facts about the suites that model cards report. Questions are
// counts of the data sets; Repeats are NVIDIA's; Within is an assumption for
// planning, to be replaced by an estimate from the first repeats.
//
// Sources: modelscope/evalscope fde259d, evalscope/benchmarks/_meta (counts);
// NVIDIA-NeMo/Evaluator ac66aff, nemo-evaluator-launcher/examples/nemotron
// (repeats).
func Known() []Facts {
	const judge, sandbox, user, images = "a judge model", "a sandbox for generated code", "a user-simulator model", "a multimodal endpoint"
	return []Facts{
		{"mmlu-pro", 12032, 1, 0.05, "TIGER-Lab/MMLU-Pro", nil},
		{"hle", 2158, 1, 0.06, "cais/hle", []string{judge}},
		{"mmmu-pro", 1730, 1, 0.07, "MMMU/MMMU_Pro", []string{images}},
		{"scicode", 338, 8, 0.08, "SciCode1/SciCode", []string{sandbox}},
		{"ifbench", 300, 8, 0.09, "allenai/IFBench_test", nil},
		{"gpqa-diamond", 198, 8, 0.07, "Idavidrein/gpqa", nil},
		{"tau2-telecom", 114, 8, 0.04, "sierra-research/tau2-bench", []string{user}},
		{"aa-lcr", 100, 16, 0.09, "ArtificialAnalysis/AA-LCR", []string{judge}},
		{"aime", 30, 64, 0.05, "MathArena/aime_2025", nil},
	}
}
