"""What an app costs on this machine, and what is in its way: facts are read, findings are judged from them.

Kept free of imports: :mod:`.probe` runs in an interpreter whose imports are measured.
"""
