package catalog

import "github.com/repromill/repromill/suites"

// later are suites that model cards report and that no version of this program
// runs yet. They are registered so that a plan says so, with the reason, and
// `power` says what they could resolve.
func later() suites.Catalog {
	return suites.Catalog{
		{Facts: suites.Facts{Suite: "hle", Questions: 2158, Repeats: 1, Within: 0.06, DataSet: "cais/hle", Needs: []suites.Need{suites.Judge}},
			Doc:   "Humanity's Last Exam, text-only questions, judged by a model",
			Later: "its gated data may not be stored in results, and its judge's protocol (o3-mini, calibration error) is not built"},
		{Facts: suites.Facts{Suite: "mmmu-pro", Questions: 1730, Repeats: 1, Within: 0.07, DataSet: "MMMU/MMMU_Pro", Needs: []suites.Need{suites.Images}},
			Doc:   "MMMU-Pro, ten options, questions about images",
			Later: "requests with images are not built"},
		{Facts: suites.Facts{Suite: "scicode", Questions: 338, Repeats: 8, Within: 0.08, DataSet: "SciCode1/SciCode", Needs: []suites.Need{suites.Sandbox}},
			Doc:   "SciCode, 338 subproblems checked by unit tests",
			Later: "running generated code against HDF5 targets with scipy 1.10.1 is not built"},
		{Facts: suites.Facts{Suite: "tau2-telecom", Questions: 114, Repeats: 8, Within: 0.04, DataSet: "sierra-research/tau2-bench", Needs: []suites.Need{suites.User, suites.Sandbox}},
			Doc:   "τ²-bench Telecom, conversations with a simulated user",
			Later: "its Python environment is run as a pod, which is not built"},
	}
}
