"""`fwdata report STORE`: everything worth knowing about a store on one page.

rows     lengths, values and times of the episodes
page     the page
"""
