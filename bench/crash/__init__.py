"""Random operations beside a model in memory while parts die at random: nothing acknowledged may be lost.

Operations (`operations`), what they must do (`model`), those who send them (`lanes`), what breaks (`faults`, `stage`,
`disk`), the server's keeper (`keeper`), what an answer must hold (`checks`, `audit`), and the counts (`report`).
"""
