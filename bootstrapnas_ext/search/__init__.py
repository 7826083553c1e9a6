"""Multi-objective search over a space of subnets: propose, measure, store, choose. Knows no model and no torch."""

from bootstrapnas_ext.search.algorithms import ALGORITHMS as ALGORITHMS
from bootstrapnas_ext.search.algorithms import SearchSettings as SearchSettings
from bootstrapnas_ext.search.objectives import ACCURACY as ACCURACY
from bootstrapnas_ext.search.objectives import OBJECTIVES as OBJECTIVES
from bootstrapnas_ext.search.objectives import Objective as Objective
from bootstrapnas_ext.search.pareto import pareto_front as pareto_front
from bootstrapnas_ext.search.plan import SearchPlan as SearchPlan
from bootstrapnas_ext.search.progress import search_progress as search_progress
from bootstrapnas_ext.search.run import Evaluate as Evaluate
from bootstrapnas_ext.search.run import run_search as run_search
from bootstrapnas_ext.search.selection import Selection as Selection
from bootstrapnas_ext.search.selection import select as select
from bootstrapnas_ext.search.storage import SearchRecord as SearchRecord
from bootstrapnas_ext.search.storage import read_search as read_search
from bootstrapnas_ext.search.trial import Measurement as Measurement
from bootstrapnas_ext.search.trial import Trial as Trial
